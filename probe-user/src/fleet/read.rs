//! What an agent printed. Untrusted: whoever controls a node controls it.

use std::net::IpAddr;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::model::{Ending, Proto, Service, Verdict};
use crate::view::json::SCHEMA_VERSION;

use super::{FailureKind, NodeAnswer, NodeFailure, NodeReply, PathEnd, PortPath};

/// The most ways of one answer that are kept; further ones are counted.
const WAYS: usize = 2_000;

/// The most bytes of a name that are kept.
const NAME: usize = 512;

/// What a run of the tool printed, and how it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunOutput {
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// The beginning of its standard error.
    pub stderr: Vec<u8>,
    /// Its exit status.
    pub code: i32,
}

/// Understands what a run of the tool gave, for `questions` questions.
///
/// # Errors
/// Why it is no answer.
pub fn read_output(output: &RunOutput, questions: usize) -> Result<NodeAnswer, NodeFailure> {
    // 0, 1 and 3 come with an answer; anything else is told on standard error.
    if !matches!(output.code, 0 | 1 | 3) {
        return Err(failed(output));
    }
    let Ok(version) = serde_json::from_slice::<ReportVersion>(&output.stdout) else {
        let cut = serde_json::from_slice::<Value>(&output.stdout)
            .is_err_and(|error| error.is_eof() && !output.stdout.is_empty());
        let (kind, what) = if cut {
            (FailureKind::Cut, "its answer ends in the middle")
        } else {
            (FailureKind::NotAnAnswer, "what it printed is no answer of whereis-port")
        };
        return Err(
            NodeFailure::new(kind, what).remedy("see kubectl logs, and the image of the agents")
        );
    };
    if version.schema_version != Some(u64::from(SCHEMA_VERSION)) {
        let theirs = version.schema_version.map_or_else(|| "none".to_owned(), |v| v.to_string());
        let tool = version.tool_version.map(short).unwrap_or_default();
        return Err(NodeFailure::new(
            FailureKind::OtherVersion,
            format!("its agent (whereis-port {tool}) answers in format {theirs}, this one reads {SCHEMA_VERSION}"),
        )
        .remedy("give agents and client the same version: whereis-port cluster manifest | kubectl apply -f -"));
    }
    let document: ReportDocument = serde_json::from_slice(&output.stdout).map_err(|error| {
        let told = crate::model::parse_error::told(&error);
        NodeFailure::new(
            FailureKind::NotAnAnswer,
            format!("its answer is not understood: it {told}"),
        )
    })?;
    if document.answers.len() != questions {
        let found = document.answers.len();
        return Err(NodeFailure::new(
            FailureKind::NotAnAnswer,
            format!("it gave {found} answers to {questions} questions"),
        ));
    }
    Ok(NodeAnswer {
        tool_version: version.tool_version.map(short).unwrap_or_default(),
        said: document.answers.into_iter().map(said).collect(),
    })
}

fn failed(output: &RunOutput) -> NodeFailure {
    let text = String::from_utf8_lossy(&output.stderr);
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    let failure = NodeFailure::new(
        FailureKind::Failed,
        format!("the tool ended with status {}: {}", output.code, short(first.to_owned())),
    );
    match output.code {
        2 => failure.remedy("give agents and client the same version"),
        126 | 127 => failure.remedy("use an image that has whereis-port on its PATH"),
        _ => failure,
    }
}

/// The versions that every document tells.
#[derive(Deserialize)]
struct ReportVersion {
    schema_version: Option<u64>,
    tool_version: Option<String>,
}

/// The document that a node prints.
#[derive(Deserialize)]
struct ReportDocument {
    answers: Vec<AnswerPart>,
}

#[derive(Deserialize)]
struct AnswerPart {
    verdict: Value,
    #[serde(default)]
    paths: Vec<PathPart>,
    #[serde(default)]
    gaps: Vec<GapPart>,
}

#[derive(Deserialize)]
struct GapPart {
    #[serde(default)]
    source: String,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct PathPart {
    #[serde(default)]
    hops: Vec<HopPart>,
    end: EndPart,
}

#[derive(Deserialize)]
struct HopPart {
    #[serde(default)]
    kind: String,
    address: Option<IpAddr>,
    name: Option<String>,
    port: Option<u16>,
    proto: Proto,
    #[serde(default)]
    detail: String,
}

#[derive(Deserialize)]
struct EndPart {
    #[serde(default)]
    ending: Value,
    why: Option<String>,
    process: Option<NamePart>,
    container: Option<NamePart>,
    pod: Option<PodPart>,
    service: Option<ServicePart>,
    component: Option<NamePart>,
    unit: Option<String>,
}

/// A process, container or component, by its name.
#[derive(Deserialize)]
struct NamePart {
    name: Option<String>,
    image: Option<String>,
}

#[derive(Deserialize)]
struct PodPart {
    namespace: Option<String>,
    name: Option<String>,
    owner: Option<String>,
}

#[derive(Deserialize)]
struct ServicePart {
    namespace: String,
    name: String,
    port: Option<String>,
}

/// A word of a fixed set; one that a later version added is not known.
fn word<T: DeserializeOwned>(value: Value, unknown: T) -> T {
    serde_json::from_value(value).unwrap_or(unknown)
}

fn said(answer: AnswerPart) -> NodeReply {
    let all = answer.paths.len();
    let ways: Vec<PortPath> = answer.paths.into_iter().filter_map(way).take(WAYS).collect();
    let gap = |gap: GapPart| short(format!("{}: {}", gap.source, gap.reason));
    NodeReply {
        verdict: word(answer.verdict, Verdict::Unknown),
        cut: if ways.len() == WAYS { all.saturating_sub(WAYS) } else { 0 },
        ways,
        gaps: answer.gaps.into_iter().take(20).map(gap).collect(),
    }
}

fn way(path: PathPart) -> Option<PortPath> {
    let first = path.hops.first()?;
    // Of a NodePort that iptables' kube-proxy holds open, for example.
    let port = first.port?;
    let end = path.end;
    let (process, container) = (end.process, end.container);
    let (container_name, image) = container.map_or((None, None), |c| (c.name, c.image));
    let (pod_namespace, pod, pod_owner) =
        end.pod.map_or((None, None, None), |pod| (pod.namespace, pod.name, pod.owner));
    let kept = |text: Option<String>| text.map(short);
    Some(PortPath {
        proto: first.proto,
        port,
        by_rules: matches!(first.kind.as_str(), "service" | "dnat"),
        taken_by: short(first.detail.clone()),
        service: end.service.map(|service| Service {
            namespace: short(service.namespace),
            name: short(service.name),
            port: kept(service.port),
        }),
        backend: PathEnd {
            address: backend_address(&path.hops),
            ending: word(end.ending, Ending::Unknown),
            why: kept(end.why),
            process: kept(process.and_then(|p| p.name)),
            container: kept(container_name),
            image: kept(image),
            pod_namespace: kept(pod_namespace),
            pod: kept(pod),
            pod_owner: kept(pod_owner),
            component: kept(end.component.and_then(|c| c.name)),
            unit: kept(end.unit),
        },
    })
}

/// The last address that a packet is sent to, behind the first step: that of the
/// pod, which is the same seen from every node. A listener's wildcard says less.
fn backend_address(hops: &[HopPart]) -> Option<String> {
    hops.iter().skip(1).rev().find_map(|hop| {
        let port = hop.port.map_or_else(String::new, |port| format!(":{port}"));
        match (hop.address, &hop.name) {
            (Some(address), _) if address.is_unspecified() => None,
            (Some(IpAddr::V6(address)), _) => Some(format!("[{address}]{port}")),
            (Some(address), _) => Some(format!("{address}{port}")),
            (None, Some(name)) => Some(short(format!("{name}{port}"))),
            (None, None) => None,
        }
    })
}

/// `text`, cut to what is kept of a name.
fn short(mut text: String) -> String {
    if text.len() > NAME {
        let end = (0..=NAME).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.shrink_to_fit();
        text.push('…');
    }
    text
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
