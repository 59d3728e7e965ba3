//! Replacing the names in certificates.

use super::super::names::{PseudonymKind, Pseudonyms};
use super::super::{RecordedFact, RecordedFacts};
use super::{replace, replace_some};
use whereis_port_model::{Certificate, CertificateName};

/// Names that every cluster's certificates have: they tell nothing of anybody.
const USUAL: [&str; 9] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "kube-apiserver",
    "etcd-ca",
    "front-proxy-ca",
    "k3s",
    "localhost",
];

impl Pseudonyms {
    pub(super) fn certificates(&mut self, facts: &mut RecordedFacts) {
        for RecordedFact { asked, read } in facts.certificates.iter_mut() {
            asked.address = self.ip(asked.address);
            if let Some(certificate) = &mut read.value {
                self.certificate(certificate);
            }
        }
    }

    fn certificate(&mut self, certificate: &mut Certificate) {
        self.certificate_name(&mut certificate.subject);
        self.certificate_name(&mut certificate.issuer);
        certificate.dns_names.iter_mut().for_each(|name| replace(name, |name| self.of_tls(name)));
        certificate.addresses.iter_mut().for_each(|address| *address = self.ip(*address));
        replace(&mut certificate.sha256, |hash| self.name(PseudonymKind::Value, hash));
    }

    /// Of the whole name only what stands for the common name stays.
    fn certificate_name(&mut self, name: &mut CertificateName) {
        replace_some(&mut name.common, |common| self.of_tls(common));
        name.full = match &name.common {
            Some(common) => format!("CN={common}"),
            None if name.full.is_empty() => String::new(),
            None => self.name(PseudonymKind::Name, &name.full.clone()),
        };
    }

    fn of_tls(&mut self, name: &str) -> String {
        if USUAL.contains(&name) { name.to_owned() } else { self.host(name) }
    }
}
