//! A client of the cluster's API.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Which cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubeOptions {
    /// The kubeconfig file; else `KUBECONFIG`, `~/.kube/config`, or the pod's own rights.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it; else its current one.
    pub context: Option<String>,
}

/// How long the API may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// A client for these options, in a tokio runtime.
///
/// # Errors
/// Why there is none, and what to do.
pub async fn kube_client(options: &KubeOptions) -> Result<Client, String> {
    let chosen =
        KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
    let config = match &options.kubeconfig {
        Some(file) => match Kubeconfig::read_from(file) {
            Ok(read) => Config::from_custom_kubeconfig(read, &chosen).await,
            Err(error) => Err(error),
        },
        None => match Config::from_kubeconfig(&chosen).await {
            Ok(config) => Ok(config),
            // Without any kubeconfig, a pod has its own rights.
            Err(error) => Config::incluster().map_err(|_| error),
        },
    };
    let mut config = config.map_err(|error| {
        format!("no kubeconfig that can be used: {}; name one with --kubeconfig", causes(&error))
    })?;
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config)
        .map_err(|error| format!("this kubeconfig can't be used: {}", causes(&error)))
}

/// An error with its causes, each once.
pub(super) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}
