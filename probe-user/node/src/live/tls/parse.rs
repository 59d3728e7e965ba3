//! A certificate from its DER.

use std::net::IpAddr;

use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

use whereis_port_model::{Certificate, CertificateName};

/// Understands a certificate. What it says of names that are no names of DNS and no
/// addresses is left out.
///
/// # Errors
/// What is wrong with it.
pub(super) fn certificate(der: &[u8]) -> Result<Certificate, String> {
    let (_, parsed) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let mut certificate = Certificate {
        subject: name(parsed.subject()),
        issuer: name(parsed.issuer()),
        from: parsed.validity().not_before.timestamp(),
        until: parsed.validity().not_after.timestamp(),
        sha256: Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect(),
        ..Certificate::default()
    };
    // Said twice it is not known what counts: then nothing is.
    let names = parsed.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName(name) => certificate.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => certificate.addresses.extend(address(bytes)),
            _ => {}
        }
    }
    Ok(certificate)
}

fn name(name: &X509Name<'_>) -> CertificateName {
    let common = name.iter_common_name().next().and_then(|common| common.as_str().ok());
    CertificateName { full: name.to_string(), common: common.map(str::to_owned) }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use whereis_port_model::Validity;

    /// `fixtures/README.md` says how they were made.
    const API_SERVER: &[u8] = include_bytes!("fixtures/kube-apiserver.der");
    const NO_NAMES: &[u8] = include_bytes!("fixtures/no-names.der");

    #[test]
    fn the_certificate_of_an_api_server() {
        let certificate = certificate(API_SERVER).unwrap();
        assert_eq!(certificate.subject.common.as_deref(), Some("kube-apiserver"));
        assert_eq!(certificate.subject.full, "O=example, CN=kube-apiserver");
        assert_eq!(certificate.issuer.common.as_deref(), Some("kubernetes"));
        let dns = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
        assert_eq!(certificate.dns_names, dns);
        let addresses: Vec<_> = certificate.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.96.0.1", "127.0.0.1", "fd00::1"]);
        // As `openssl x509 -fingerprint -sha256` has it.
        assert_eq!(certificate.sha256, include_str!("fixtures/kube-apiserver.sha256").trim());
        assert_eq!((certificate.from, certificate.until), (1_767_312_000, 1_798_848_000));
        for (now, validity) in [
            (1_767_311_999, Validity::NotYet),
            (1_767_312_000, Validity::Valid),
            (1_798_848_000, Validity::Valid),
            (1_798_848_001, Validity::Expired),
            (u64::MAX, Validity::Expired),
        ] {
            assert_eq!(certificate.validity(now), validity, "{now}");
        }
    }

    #[test]
    fn a_certificate_needs_no_names() {
        let certificate = certificate(NO_NAMES).unwrap();
        assert_eq!(certificate.subject, CertificateName::default());
        assert_eq!(certificate.issuer, certificate.subject);
        assert!(certificate.dns_names.is_empty() && certificate.addresses.is_empty());
    }

    #[test]
    fn garbage_is_refused_and_never_panics() {
        for garbage in [&b""[..], b"\x30\x80\x00", b"SSH-2.0-OpenSSH_9.2", &[0x30, 0x84, 0xff]] {
            assert!(certificate(garbage).is_err(), "{garbage:?}");
        }
        for end in 0..API_SERVER.len() {
            assert!(certificate(&API_SERVER[..end]).is_err(), "cut at {end}");
        }
        for at in 0..API_SERVER.len() {
            let mut changed = API_SERVER.to_vec();
            changed[at] ^= 0x55;
            let _ = certificate(&changed);
        }
    }
}
