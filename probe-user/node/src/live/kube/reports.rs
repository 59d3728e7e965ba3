//! What `doctor` says of Kubernetes APIs: which contexts there are, and which API answers.

use std::time::Instant;

use futures_util::future::join_all;

use super::client::{ApiFailure, is_loopback};
use super::config::{ContextConfig, ON_NODES, find};
use super::{KubeOptions, TIME, connect, fetch};
use whereis_port_model::{Gap, SourceReport};

/// How many contexts are told.
const TOLD: usize = 20;

/// Asks the APIs of the contexts that concern this machine for their version, all at once.
pub fn kube_reports(options: &KubeOptions) -> Vec<SourceReport> {
    let (mut found, gaps) = find(options);
    found.truncate(TOLD);
    let mut reports: Vec<SourceReport> = gaps.into_iter().map(unread).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return reports };
    reports.extend(runtime.block_on(join_all(found.iter().map(report))));
    // A look-up of a name that hangs would be waited for.
    runtime.shutdown_background();
    reports
}

fn unread(gap: Gap) -> SourceReport {
    SourceReport {
        name: gap.source.to_string(),
        ok: false,
        reason: Some(gap.reason),
        remedy: gap.remedy,
        command: gap.command,
        ms: 0.0,
        detail: String::new(),
        namespaces: None,
    }
}

async fn report(entry: &ContextConfig) -> SourceReport {
    let since = Instant::now();
    let context = &entry.context;
    let at = format!("{} of {}", context.server, context.file);
    let mut report = SourceReport {
        name: format!("kube context {}", context.name),
        ok: true,
        reason: None,
        remedy: None,
        command: None,
        ms: 0.0,
        detail: format!("{at}: asked when a node of it is here, or by --context"),
        namespaces: None,
    };
    if !concerns(entry) {
        return report;
    }
    match tokio::time::timeout(TIME, version(entry)).await.unwrap_or(Err(ApiFailure::Timeout)) {
        Ok(version) => report.detail = format!("{at}: {version}"),
        Err(failure) => {
            let gap = failure.explained(entry).gap(context);
            report.ok = false;
            report.reason = Some(format!("{at}: {}", gap.reason));
            report.remedy = gap.remedy;
            report.command = gap.command;
            report.detail = String::new();
        }
    }
    report.ms = since.elapsed().as_secs_f64() * 1000.0;
    report
}

async fn version(entry: &ContextConfig) -> Result<String, ApiFailure> {
    let client = connect(entry, Instant::now() + TIME).await?;
    fetch::version(&client).await
}

/// Whether a context is the current one, was asked for, or is likely of a node of this
/// machine.
fn concerns(entry: &ContextConfig) -> bool {
    let context = &entry.context;
    let host = context.server.split_once("://").map_or("", |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let own = ON_NODES.contains(&context.file.as_str());
    context.current || context.asked_for || own || is_loopback(host)
}
