//! A client of one API, and why there may be none.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use kube::{Client, Config};
use x509_parser::pem::Pem;
use x509_parser::time::ASN1Time;

use super::config::ContextConfig;
use super::login;
use whereis_port_model::{Command, Gap, GapKind, GapSource, Impact, KubeContext};

/// Why an API gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::live) enum ApiFailure {
    /// The kubeconfig is not complete.
    Config(String),
    /// The program that gives the credentials did not, and what would help.
    Login(String, Help),
    /// No connection.
    Unreachable(String),
    /// It has another certificate than the kubeconfig says.
    Certificate(String),
    /// No answer in time.
    Timeout,
    /// It does not know who asks. When the user's certificate has expired, since when.
    Unauthorized(Option<String>),
    /// It refuses a verb on a resource.
    Forbidden(&'static str, String),
    /// The answer is larger than is read.
    TooBig,
    /// A list changed each time while it was read.
    Changing,
    /// Something else than the API says. Untrusted text.
    Garbage(String),
}

/// What would help where a program did not give credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::live) enum Help {
    /// To see what kubectl says.
    Kubectl,
    /// Something else, in words.
    Words(String),
}

impl ApiFailure {
    /// Whether asking the same API something else would fail in the same way.
    pub(super) fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::Config(_)
                | Self::Login(..)
                | Self::Unreachable(_)
                | Self::Certificate(_)
                | Self::Timeout
                | Self::Unauthorized(_)
        )
    }

    /// The same failure with what the kubeconfig tells of its reason.
    pub(super) fn explained(self, entry: &ContextConfig) -> Self {
        match self {
            Self::Unauthorized(None) => Self::Unauthorized(expired(entry)),
            other => other,
        }
    }

    /// What is missing because of it.
    pub(super) fn gap(&self, context: &KubeContext) -> Gap {
        let source = format!("Kubernetes API {} (context {})", context.server, context.name);
        let source = GapSource::new(GapKind::KubernetesApi, source);
        let mut kubectl = None;
        let mut and_kubectl = |words: String| {
            kubectl = Some(Command::new("kubectl --context").arg(&context.name).args("get nodes"));
            Some(words)
        };
        let (reason, remedy) = match self {
            Self::Config(why) => (
                format!("the context can't be used: {why}"),
                Some(format!("mend {}", context.file)),
            ),
            Self::Login(why, Help::Kubectl) => (why.clone(), and_kubectl("try:".to_owned())),
            Self::Login(why, Help::Words(words)) => (why.clone(), Some(words.clone())),
            Self::Unreachable(why) => {
                (format!("out of reach: {why}"), and_kubectl("try:".to_owned()))
            }
            Self::Certificate(why) => (
                format!("its certificate is not trusted: {why}"),
                Some(format!(
                    "the context may be of a cluster that is gone or was made anew: see {}",
                    context.file
                )),
            ),
            Self::Timeout => ("no answer in time".to_owned(), and_kubectl("try:".to_owned())),
            Self::Unauthorized(None) => (
                "it does not accept the credentials: they are wrong or have expired".to_owned(),
                and_kubectl("log in again, then:".to_owned()),
            ),
            Self::Unauthorized(Some(since)) => (
                format!("it does not accept the client certificate, which has expired ({since})"),
                and_kubectl(format!("renew it in {}, then:", context.file)),
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
        Gap { remedy, command: kubectl, ..Gap::new(Impact::Name, source, reason) }
    }
}

/// What to connect with, credentials included. Programs that give them are run within
/// `limit`, so that this may take as long.
pub(super) fn log_in(entry: &ContextConfig, limit: Duration) -> Result<Config, ApiFailure> {
    let mut config = match &entry.config {
        Ok(config) => (**config).clone(),
        Err(why) => return Err(ApiFailure::Config(why.clone())),
    };
    if let Some(exec) = config.auth_info.exec.take() {
        let credentials = login::run(&exec, entry, limit)?;
        credentials.put_into(&mut config.auth_info);
    }
    if let Some(provider) = &config.auth_info.auth_provider
        && provider.config.contains_key("cmd-path")
    {
        // It would be run without a limit, whoever wrote the file.
        return Err(ApiFailure::Login(
            format!(
                "its credentials come from auth-provider {:?}, which newer kubectl does not \
                 have either",
                provider.name
            ),
            Help::Words("log in again with the provider's own program".to_owned()),
        ));
    }
    config.connect_timeout = Some(limit);
    // Each request has its own limit, and a second try would only take of the same time.
    config.default_retry = false;
    if config.cluster_url.host().is_some_and(is_loopback) {
        config.proxy_url = None;
    }
    Ok(config)
}

/// Makes a client, within a tokio runtime. Nothing is connected to yet.
pub(super) fn connect(config: Config) -> Result<Client, ApiFailure> {
    // It fails when there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::try_from(config).map_err(|error| ApiFailure::Config(first_line(&error.to_string())))
}

/// When the client certificate of a context expired, if it did.
fn expired(entry: &ContextConfig) -> Option<String> {
    let data = entry.config.as_ref().ok()?.auth_info.client_certificate_data.as_ref()?;
    expired_at(&BASE64.decode(data).ok()?)
}

fn expired_at(pem: &[u8]) -> Option<String> {
    let pem = Pem::iter_from_buffer(pem).next()?.ok()?;
    let until = pem.parse_x509().ok()?.validity().not_after;
    (until < ASN1Time::now()).then(|| until.to_string())
}

/// Whether the server of a context needs no look-up of a name. A proxy may have one.
pub(super) fn is_address(entry: &ContextConfig) -> bool {
    let Ok(config) = &entry.config else { return true };
    let host = config.cluster_url.host().unwrap_or_default();
    config.proxy_url.is_none() && host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
}

/// Whether a host is this machine, however it is written.
pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// What went wrong on the way to an API, by the innermost reason.
pub(super) fn failure(error: &kube::Error) -> ApiFailure {
    let mut text = error.to_string();
    let mut inner: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = inner {
        if let Some(tls) = tls_in(error) {
            return of_tls(tls);
        }
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::TimedOut) {
            return ApiFailure::Timeout;
        }
        text = error.to_string();
        inner = error.source();
    }
    ApiFailure::Unreachable(first_line(&text))
}

/// The error of TLS in an error, which may be wrapped in errors of I/O that hide it.
fn tls_in<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls) = error.downcast_ref() {
        return Some(tls);
    }
    let wrapped = error.downcast_ref::<std::io::Error>()?.get_ref()?;
    tls_in(wrapped)
}

/// What went wrong in TLS, in words.
fn of_tls(error: &rustls::Error) -> ApiFailure {
    use rustls::{AlertDescription as Alert, CertificateError as Wrong};
    let why = match error {
        rustls::Error::InvalidCertificate(Wrong::Expired | Wrong::ExpiredContext { .. }) => {
            "it has expired"
        }
        rustls::Error::InvalidCertificate(Wrong::UnknownIssuer | Wrong::BadSignature) => {
            "another authority signed it than the kubeconfig says"
        }
        rustls::Error::InvalidCertificate(
            Wrong::NotValidForName | Wrong::NotValidForNameContext { .. },
        ) => "it is for other addresses and names",
        rustls::Error::AlertReceived(
            Alert::BadCertificate
            | Alert::CertificateExpired
            | Alert::CertificateRequired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied,
        ) => return ApiFailure::Unauthorized(None),
        rustls::Error::InvalidCertificate(_) => {
            return ApiFailure::Certificate(first_line(&error.to_string()));
        }
        _ => return ApiFailure::Unreachable(first_line(&format!("no TLS: {error}"))),
    };
    ApiFailure::Certificate(why.to_owned())
}

/// The beginning of a message that somebody else wrote.
pub(super) fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}
