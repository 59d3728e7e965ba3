//! Asks the nodes: the only part that does I/O.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, ListParams};
use kube::{Api, Client};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;

use crate::model::Gap;
use crate::node::{KubeOptions, kube_client};
use crate::view::shell;

use super::{
    Agent, CONTAINER, FailureKind, Fleet, NodeFacts, NodeFailure, PodFacts, Report, RunOutput,
    SELECTOR, choose, read_output,
};

/// What asking many nodes may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FleetLimits {
    /// How long one node may take.
    pub each: Duration,
    /// How many nodes are asked at the same time.
    pub at_once: usize,
    /// How many bytes of an answer are read.
    pub bytes: u64,
}

impl Default for FleetLimits {
    fn default() -> Self {
        Self { each: Duration::from_secs(10), at_once: 50, bytes: 8 << 20 }
    }
}

/// How many objects one page of a list has.
const PAGE: u32 = 250;

/// How many bytes of what a tool says on standard error are kept.
const STDERR: u64 = 64 << 10;

/// Answers that are longer than this are read a few at a time, so that all together need
/// little memory whatever nodes send.
const LONG: u64 = 256 << 10;

/// How many long answers are read at the same time.
const LONG_AT_ONCE: usize = 4;

/// How long the API may take for its lists.
const LISTS: Duration = Duration::from_secs(15);

/// What is told while nodes are asked.
#[derive(Debug)]
pub enum AskProgress<'a> {
    /// So many nodes are there altogether.
    Nodes(usize),
    /// A node has answered, or will not.
    Report(&'a Report),
}

/// Runs the tool for `targets` in every agent in `namespace`, and tells `seen` of
/// each node as it answers.
///
/// # Errors
/// When agents can't be found at all: why, and what to do.
pub fn ask<E: From<String>>(
    options: &KubeOptions,
    namespace: &str,
    targets: &[String],
    limits: FleetLimits,
    mut seen: impl FnMut(AskProgress<'_>) -> Result<(), E>,
) -> Result<Fleet, E> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("starting: {error}"))?;
    let fleet = runtime.block_on(run(options, namespace, targets, limits, &mut seen));
    // Nothing that still hangs is waited for.
    runtime.shutdown_background();
    fleet
}

async fn run<E: From<String>>(
    options: &KubeOptions,
    namespace: &str,
    targets: &[String],
    limits: FleetLimits,
    seen: &mut impl FnMut(AskProgress<'_>) -> Result<(), E>,
) -> Result<Fleet, E> {
    // The current context's, or the one that was asked for. Within the runtime, for it
    // starts a task.
    let client = kube_client(options, None).map_err(|gap| no_client(&gap))?;
    let (pods, nodes) = tokio::join!(
        tokio::time::timeout(LISTS, pods(&client, namespace)),
        tokio::time::timeout(LISTS, nodes(&client)),
    );
    let pods = pods.map_err(|_| slow_lists())?.map_err(|error| no_pods(&error, namespace))?;
    let (nodes, nodes_unknown) = match nodes {
        Ok(Ok(nodes)) => (nodes, None),
        Ok(Err(error)) => (Vec::new(), Some(no_nodes(&error))),
        Err(_) => (Vec::new(), Some(NodeFailure::timeout(LISTS))),
    };
    let (agents, without) = choose(&pods, &nodes);
    seen(AskProgress::Nodes(agents.len() + without.len()))?;
    let mut fleet = Fleet { reports: Vec::new(), nodes_unknown };
    for (node, failure) in without {
        let pod = pods.iter().find(|pod| pod.node.as_deref() == Some(&node));
        let pod = pod.map(|pod| pod.name.clone());
        let report = Report { node, pod, outcome: Err(failure), ms: 0 };
        seen(AskProgress::Report(&report))?;
        fleet.reports.push(report);
    }
    let api: Api<Pod> = Api::namespaced(client, namespace);
    let command: Arc<[String]> = ["whereis-port", "--json"]
        .into_iter()
        .map(str::to_owned)
        .chain(targets.iter().cloned())
        .collect();
    let long = Arc::new(Semaphore::new(LONG_AT_ONCE));
    let mut waiting = agents.into_iter();
    let mut running = JoinSet::new();
    loop {
        while running.len() < limits.at_once.max(1) {
            let Some(agent) = waiting.next() else { break };
            running.spawn(ask_one(api.clone(), agent, command.clone(), limits, long.clone()));
        }
        let Some(done) = running.join_next().await else { break };
        // A task of this program ends early only by a bug in it.
        let report = done.map_err(|error| format!("asking a node: {error}"))?;
        seen(AskProgress::Report(&report))?;
        fleet.reports.push(report);
    }
    fleet.reports.sort_by(|one, other| one.node.cmp(&other.node));
    Ok(fleet)
}

async fn ask_one(
    api: Api<Pod>,
    agent: Agent,
    command: Arc<[String]>,
    limits: FleetLimits,
    long: Arc<Semaphore>,
) -> Report {
    let begin = Instant::now();
    let mut turn = None;
    let run = exec(&api, &agent.pod, &command, limits, &long, &mut turn);
    let output = match tokio::time::timeout(limits.each, run).await {
        Ok(output) => output,
        Err(_) => Err(NodeFailure::timeout(limits.each)),
    };
    // What a node printed is reduced at once: 8 MB of each would be too much to keep.
    let questions = command.len().saturating_sub(2);
    let outcome = output.and_then(|output| read_output(&output, questions));
    drop(turn);
    let ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    Report { node: agent.node, pod: Some(agent.pod), outcome, ms }
}

/// Runs the tool in a pod, within bounds.
async fn exec<'a>(
    api: &Api<Pod>,
    pod: &str,
    command: &[String],
    limits: FleetLimits,
    long: &'a Semaphore,
    turn: &mut Option<SemaphorePermit<'a>>,
) -> Result<RunOutput, NodeFailure> {
    let params = AttachParams {
        container: Some(CONTAINER.to_owned()),
        stdin: false,
        stdout: true,
        stderr: true,
        tty: false,
        max_stdout_buf_size: Some(64 << 10),
        ..AttachParams::default()
    };
    let mut attached = api.exec(pod, command, &params).await.map_err(|error| no_exec(&error))?;
    let (Some(stdout), Some(stderr), Some(status)) =
        (attached.stdout(), attached.stderr(), attached.take_status())
    else {
        return Err(NodeFailure::new(
            FailureKind::Failed,
            "this is a bug in whereis-port: no streams",
        ));
    };
    let reading = async {
        tokio::try_join!(read_answer(stdout, limits.bytes, long, turn), read_some(stderr, STDERR))
    };
    tokio::pin!(reading, status);
    let cut = || NodeFailure::new(FailureKind::Cut, "the connection ended before its answer did");
    // When the connection breaks, the streams stay open and only the status is given up.
    let (read, status) = tokio::select! {
        read = &mut reading => (read?, status.await.ok_or_else(cut)?),
        status = &mut status => {
            let status = status.ok_or_else(cut)?;
            (reading.await?, status)
        }
    };
    let (stdout, stderr) = read;
    Ok(RunOutput { stdout, stderr, code: exit_code(&status)? })
}

/// Reads an answer, a long one when it is its turn. Fails beyond `limit` bytes.
async fn read_answer<'a>(
    mut from: impl AsyncRead + Unpin,
    limit: u64,
    long: &'a Semaphore,
    turn: &mut Option<SemaphorePermit<'a>>,
) -> Result<Vec<u8>, NodeFailure> {
    let mut kept = Vec::new();
    (&mut from).take(LONG.min(limit)).read_to_end(&mut kept).await.map_err(broken)?;
    if length(&kept) < LONG.min(limit) {
        return Ok(kept);
    }
    // It is never closed.
    *turn = long.acquire().await.ok();
    from.take((limit + 1).saturating_sub(length(&kept)))
        .read_to_end(&mut kept)
        .await
        .map_err(broken)?;
    if length(&kept) > limit { Err(NodeFailure::too_long(limit)) } else { Ok(kept) }
}

/// Reads to the end, and keeps the first `limit` bytes.
async fn read_some(mut from: impl AsyncRead + Unpin, limit: u64) -> Result<Vec<u8>, NodeFailure> {
    let mut kept = Vec::new();
    (&mut from).take(limit).read_to_end(&mut kept).await.map_err(broken)?;
    let mut rest = [0; 4096];
    while from.read(&mut rest).await.map_err(broken)? > 0 {}
    Ok(kept)
}

fn broken(error: std::io::Error) -> NodeFailure {
    NodeFailure::new(FailureKind::Cut, error.to_string())
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// The exit status of what was run, or why it was not run.
fn exit_code(status: &Status) -> Result<i32, NodeFailure> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.as_ref().and_then(|details| details.causes.as_ref());
    let code =
        causes.into_iter().flatten().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    if let Some(code) = code.and_then(|cause| cause.message.as_ref()?.parse().ok()) {
        return Ok(code);
    }
    let message = status.message.as_deref().unwrap_or("it is not said why");
    Err(NodeFailure::new(FailureKind::Failed, format!("the tool could not be run: {message}"))
        .remedy("use an image that has whereis-port on its PATH"))
}

async fn pods(client: &Client, namespace: &str) -> kube::Result<Vec<PodFacts>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut params = ListParams::default().labels(SELECTOR).limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = api.list(&params).await?;
        params.continue_token = page.metadata.continue_.clone().filter(|token| !token.is_empty());
        all.extend(page.items.iter().map(pod_facts));
        if params.continue_token.is_none() {
            return Ok(all);
        }
    }
}

async fn nodes(client: &Client) -> kube::Result<Vec<NodeFacts>> {
    let api: Api<Node> = Api::all(client.clone());
    let mut params = ListParams::default().limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = api.list(&params).await?;
        params.continue_token = page.metadata.continue_.clone().filter(|token| !token.is_empty());
        all.extend(page.items.iter().map(node_facts));
        if params.continue_token.is_none() {
            return Ok(all);
        }
    }
}

fn pod_facts(pod: &Pod) -> PodFacts {
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let container = status.container_statuses.unwrap_or_default().into_iter().next();
    let state = container.and_then(|container| container.state).unwrap_or_default();
    let waits = state.waiting.and_then(|waiting| waiting.reason);
    let ended = state.terminated.and_then(|ended| ended.reason);
    PodFacts {
        name: pod.metadata.name.clone().unwrap_or_default(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        ready: conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"),
        ending: pod.metadata.deletion_timestamp.is_some(),
        why: waits.or(ended).or(status.reason).or(status.phase),
    }
}

fn node_facts(node: &Node) -> NodeFacts {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    NodeFacts {
        name: node.metadata.name.clone().unwrap_or_default(),
        ready: conditions
            .is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True")),
    }
}

fn no_client(gap: &Gap) -> String {
    let mut text = format!("{}: {}", gap.source, gap.reason);
    if let Some(remedy) = &gap.remedy {
        text.push_str(&format!("; {remedy}"));
    }
    if let Some(command) = &gap.command {
        text.push_str(&format!(" {}", shell::shown(command)));
    }
    text
}

fn slow_lists() -> String {
    format!("the API did not list the agents within {} s; ask again", LISTS.as_secs())
}

fn no_pods(error: &kube::Error, namespace: &str) -> String {
    match error {
        kube::Error::Api(status) => {
            let what = format!("pods in namespace {namespace}");
            let failure = NodeFailure::of_status(status.code, &status.message, "list", &what);
            let remedy = failure.remedy.map_or_else(String::new, |fix| format!("; needs {fix}"));
            format!("the agents can't be listed: {}{remedy}", failure.reason)
        }
        other => format!(
            "the API can't be asked: {}; see kubectl cluster-info, or choose with --context",
            causes(other)
        ),
    }
}

fn no_nodes(error: &kube::Error) -> NodeFailure {
    match error {
        kube::Error::Api(status) => {
            NodeFailure::of_status(status.code, &status.message, "list", "nodes")
        }
        other => NodeFailure::new(FailureKind::Unreachable, causes(other)),
    }
}

fn no_exec(error: &kube::Error) -> NodeFailure {
    match error {
        // Which verb is asked for depends on the version of the API server; its message says it.
        kube::Error::Api(status) => {
            NodeFailure::of_status(status.code, &status.message, "create (and get)", "pods/exec")
        }
        other => NodeFailure::new(
            FailureKind::Unreachable,
            format!("the API did not get through to the agent: {}", causes(other)),
        ),
    }
}

/// An error with its causes, each once.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(value: serde_json::Value) -> Status {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_exit_status_is_what_the_api_says() {
        let code = |n: &str| {
            status(json!({"status": "Failure", "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": n}]}}))
        };
        assert_eq!(exit_code(&status(json!({"status": "Success"}))).unwrap(), 0);
        assert_eq!(exit_code(&code("3")).unwrap(), 3);
        assert_eq!(exit_code(&code("many")).unwrap_err().kind, FailureKind::Failed);
        let missing = json!({"status": "Failure", "reason": "InternalError",
            "message": "exec: \"whereis-port\": executable file not found in $PATH"});
        let failure = exit_code(&status(missing)).unwrap_err();
        assert!(failure.reason.contains("not found in $PATH"), "{failure:?}");
    }

    #[tokio::test]
    async fn an_answer_is_read_whole_or_not_at_all() {
        let long = Semaphore::new(1);
        let bytes = vec![b'x'; 600 << 10];
        let limit = length(&bytes);
        for (limit, whole) in [(limit, true), (limit + 1, true), (limit - 1, false), (10, false)] {
            let mut turn = None;
            let read = read_answer(bytes.as_slice(), limit, &long, &mut turn).await;
            assert_eq!(read.is_ok(), whole, "{limit}");
            assert!(read.is_err() || read.is_ok_and(|read| read == bytes));
            assert!(turn.is_some(), "long ones wait for their turn");
        }
        let mut turn = None;
        let read = read_answer(&b"short"[..], 100, &long, &mut turn).await.unwrap();
        assert!(read == b"short" && turn.is_none());
        assert_eq!(read_some(bytes.as_slice(), 7).await.unwrap(), b"xxxxxxx");
    }

    #[test]
    fn a_pod_that_does_not_start_says_why() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": []},
            "status": {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [{"name": "agent", "ready": false, "restartCount": 0, "image": "",
                    "imageID": "", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]},
        }))
        .unwrap();
        let facts = pod_facts(&pod);
        assert_eq!((facts.ready, facts.why.as_deref()), (false, Some("ImagePullBackOff")));
    }
}
