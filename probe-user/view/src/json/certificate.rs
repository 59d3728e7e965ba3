//! Certificates that listeners show.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use whereis_port_model as model;

use super::Validity;

/// The certificate of a server, as it says itself: who signed it was not verified.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Certificate<'a> {
    /// For whom it was made: `O=k3s, CN=k3s`.
    pub subject: &'a str,
    /// The common name in `subject`.
    pub common_name: Option<&'a str>,
    /// Who signed it: `CN=kubernetes`.
    pub issuer: &'a str,
    /// The common name in `issuer`.
    pub issuer_common_name: Option<&'a str>,
    /// The DNS names that it is for.
    pub dns_names: &'a [String],
    /// The addresses that it is for.
    pub ip_addresses: &'a [IpAddr],
    /// Since when it is valid, in seconds since the epoch.
    pub valid_from: i64,
    /// Until when it is valid, in seconds since the epoch.
    pub valid_until: i64,
    /// Whether it is valid by this node's clock.
    pub validity: Validity,
    /// Its SHA-256 (DER), in hex.
    pub sha256: &'a str,
}

impl<'a> From<&'a model::Served> for Certificate<'a> {
    fn from(served: &'a model::Served) -> Self {
        let certificate = &served.certificate;
        Self {
            subject: &certificate.subject.full,
            common_name: certificate.subject.common.as_deref(),
            issuer: &certificate.issuer.full,
            issuer_common_name: certificate.issuer.common.as_deref(),
            dns_names: &certificate.dns_names,
            ip_addresses: &certificate.addresses,
            valid_from: certificate.from,
            valid_until: certificate.until,
            validity: served.validity.into(),
            sha256: &certificate.sha256,
        }
    }
}
