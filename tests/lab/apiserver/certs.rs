//! Certificates of the server, good ones and others.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// Which certificate a server shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// One that its kubeconfig's authority signed, for its address.
    Good,
    /// One that another authority signed: a cluster that was made anew.
    OtherAuthority,
    /// One for another address.
    OtherName,
    /// One that has expired.
    Expired,
    /// A good one, of a server that breaks off with whoever has none, as etcd does.
    WantsClients,
}

/// The certificate of a user, which has expired.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The certificate's file.
    pub certificate: std::path::PathBuf,
    /// Its key's file.
    pub key: std::path::PathBuf,
}

impl ClientCertificate {
    /// Writes one that expired in the year 2001.
    ///
    /// # Errors
    /// When it can't be made or written.
    pub fn expired(dir: &Path) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        let certificate = params.self_signed(&key)?;
        let of = Self { certificate: dir.join("client.crt"), key: dir.join("client.key") };
        std::fs::write(&of.certificate, certificate.pem())?;
        std::fs::write(&of.key, key.serialize_pem())?;
        Ok(of)
    }
}

/// What a server needs for TLS, and the authority that a kubeconfig has of it, as PEM.
pub(super) fn server(which: Certificate) -> Result<(Arc<ServerConfig>, String)> {
    let (told, issuer) = authority()?;
    let issuer = if which == Certificate::OtherAuthority { authority()?.1 } else { issuer };
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    let address = match which {
        Certificate::OtherName => Ipv4Addr::new(192, 0, 2, 1),
        _ => Ipv4Addr::LOCALHOST,
    };
    params.subject_alt_names = vec![
        SanType::DnsName("kubernetes.default.svc".try_into()?),
        SanType::IpAddress(address.into()),
    ];
    if which == Certificate::Expired {
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    }
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let config = if which == Certificate::WantsClients {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(told.as_bytes())?)?;
        let roots = Arc::new(roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
        config.with_client_cert_verifier(verifier)
    } else {
        config.with_no_client_auth()
    };
    let config = config.with_single_cert(vec![certificate.der().clone()], key)?;
    Ok((Arc::new(config), told))
}

/// An authority: its certificate, and what signs.
fn authority() -> Result<(String, Issuer<'static, KeyPair>)> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "kubernetes");
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), Issuer::new(params, key)))
}
