//! What a listener shows of itself when somebody begins TLS with it. Everything textual
//! is untrusted.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{NetnsId, Port};

/// A listener whose certificate is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TlsAsk {
    /// The namespace in which it listens.
    pub netns: NetnsId,
    /// An address of that namespace which it takes connections on.
    pub address: IpAddr,
    /// The port.
    pub port: Port,
}

/// The certificate of a server, as it says itself: nothing of it was verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// For whom it was made: `CN=kube-apiserver`.
    pub subject: CertificateName,
    /// Who signed it: `CN=kubernetes`.
    pub issuer: CertificateName,
    /// The DNS names that it is for.
    pub dns_names: Vec<String>,
    /// The addresses that it is for.
    pub addresses: Vec<IpAddr>,
    /// Since when it is valid, in seconds since the epoch.
    pub from: i64,
    /// Until when it is valid, in seconds since the epoch.
    pub until: i64,
    /// Its SHA-256 (DER), in hex.
    pub sha256: String,
}

/// A name in a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateName {
    /// All of it: `O=k3s, CN=k3s`.
    pub full: String,
    /// Its common name.
    pub common: Option<String>,
}

/// Whether a certificate is valid at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validity {
    /// It is.
    Valid,
    /// No more.
    Expired,
    /// Not yet.
    NotYet,
}

impl Certificate {
    /// Whether it is valid at `now`, in seconds since the epoch. Both ends belong to it.
    pub fn validity(&self, now: u64) -> Validity {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        if now > self.until {
            Validity::Expired
        } else if now < self.from {
            Validity::NotYet
        } else {
            Validity::Valid
        }
    }
}

/// The certificate at the end of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// What the listener showed.
    pub certificate: Certificate,
    /// Whether it is valid by this node's clock.
    pub validity: Validity,
}
