//! A client of one API, and why there may be none.

use std::time::Duration;

use kube::Client;

use super::config::Found;
use super::login;
use crate::model::{Gap, Impact, KubeContext};

/// Why an API gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node::live) enum Failure {
    /// The kubeconfig is not complete.
    Config(String),
    /// The program that gives the credentials did not, and what would help.
    Login(String, Option<String>),
    /// No connection.
    Unreachable(String),
    /// It has another certificate than the kubeconfig says.
    Certificate(String),
    /// No answer in time.
    Timeout,
    /// It does not know who asks.
    Unauthorized,
    /// It refuses a verb on a resource.
    Forbidden(&'static str, String),
    /// The answer is larger than is read.
    TooBig,
    /// A list changed each time while it was read.
    Changing,
    /// Something else than the API says. Untrusted text.
    Garbage(String),
}

impl Failure {
    /// Whether asking the same API something else would fail in the same way.
    pub(super) fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::Config(_)
                | Self::Login(..)
                | Self::Unreachable(_)
                | Self::Certificate(_)
                | Self::Timeout
                | Self::Unauthorized
        )
    }

    /// What is missing because of it.
    pub(super) fn gap(&self, context: &KubeContext) -> Gap {
        let source = format!("Kubernetes API {} (context {})", context.server, context.name);
        let kubectl = format!("kubectl --context {} get nodes", context.name);
        let (reason, remedy) = match self {
            Self::Config(why) => (
                format!("the context can't be used: {why}"),
                Some(format!("mend {}", context.file)),
            ),
            Self::Login(why, remedy) => (why.clone(), remedy.clone()),
            Self::Unreachable(why) => {
                (format!("out of reach: {why}"), Some(format!("try: {kubectl}")))
            }
            Self::Certificate(why) => (
                format!("its certificate is not the cluster's: {why}"),
                Some(format!("the context may be of a cluster that is gone: see {}", context.file)),
            ),
            Self::Timeout => ("no answer in time".to_owned(), Some(format!("try: {kubectl}"))),
            Self::Unauthorized => (
                "it does not accept the credentials: they are wrong or have expired".to_owned(),
                Some(format!("log in again, then: {kubectl}")),
            ),
            Self::Forbidden(verb, what) => (
                format!("it refuses to {verb} {what}"),
                Some(format!("allow this user to get and list {what}")),
            ),
            Self::TooBig => ("an answer is larger than is read".to_owned(), None),
            Self::Changing => {
                ("what was listed changed each time while it was read".to_owned(), None)
            }
            Self::Garbage(what) => (format!("an answer is not understood: {what}"), None),
        };
        let gap = Gap::new(Impact::Name, source, reason);
        match remedy {
            Some(remedy) => gap.remedy(remedy),
            None => gap,
        }
    }
}

/// Makes a client. Programs that give credentials are run within `limit`.
pub(super) fn connect(entry: &Found, limit: Duration) -> Result<Client, Failure> {
    let mut config = match &entry.config {
        Ok(config) => (**config).clone(),
        Err(why) => return Err(Failure::Config(why.clone())),
    };
    if let Some(exec) = config.auth_info.exec.take() {
        let credentials = login::run(&exec, entry, limit)?;
        credentials.put_into(&mut config.auth_info);
    }
    config.connect_timeout = Some(limit);
    // Each request has its own limit, and a second try would only take of the same time.
    config.default_retry = false;
    if config.cluster_url.host().is_some_and(is_loopback) {
        config.proxy_url = None;
    }
    // It fails when there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::try_from(config).map_err(|error| Failure::Config(first_line(&error.to_string())))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// What went wrong on the way to an API, by the innermost reason.
pub(super) fn failure(error: &kube::Error) -> Failure {
    let mut text = error.to_string();
    let mut inner: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = inner {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Failure::Certificate(first_line(&tls.to_string()));
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            // TLS errors travel inside of these.
            if let Some(tls) = io.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
                return Failure::Certificate(first_line(&tls.to_string()));
            }
            if io.kind() == std::io::ErrorKind::TimedOut {
                return Failure::Timeout;
            }
        }
        text = error.to_string();
        inner = error.source();
    }
    Failure::Unreachable(first_line(&text))
}

/// The beginning of a message that somebody else wrote.
pub(super) fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}
