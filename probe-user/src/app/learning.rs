//! `--watch`: giving the node time to show where its listeners lead.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Failure;
use crate::cli::Global;
use crate::model::{
    EventKind, Gap, GapKind, Impact, Proto, Query, Read, SocketFilter, SocketInode, SourceReport,
    Watched, counted, spoken_ms,
};
use crate::node::{self, LiveNode, Node, Watch, WatchRequest};
use crate::resolve::Learner;

/// How long is waited at most before looking whether to end: a signal may come
/// just before a wait.
const TICK: Duration = Duration::from_millis(250);

/// Watches this node for `time`, or until Ctrl-C, and gives what that told.
/// Where it can't be watched, that is a gap.
/// Of what is dropped, only that on its way to the ports of `queries`.
pub(super) fn learn(
    global: &Global,
    time: Duration,
    queries: &[Query],
) -> Result<Read<Option<Watched>>, Failure> {
    let stop = super::trace::stop_on_signals()?;
    // All ports: a forward may lead to a listener that leads on.
    let wanted = WatchRequest {
        kinds: vec![EventKind::Accept, EventKind::Connect, EventKind::Drop],
        ports: None,
        drops: queries.iter().map(|query| query.ports).collect(),
        interval: TICK,
        ebpf: true,
        buffer: None,
    };
    let mut watch = node::watch(&wanted).map_err(|error| super::no_procfs(&error))?;
    if let Some(gap) = unable(&watch.sources(), &watch.gaps()) {
        return Ok(Read::partial(None, gap));
    }
    if io::stderr().is_terminal() {
        say(&format!(
            "watching for {} where connections lead; Ctrl-C ends it early and answers with what was seen",
            spoken_ms(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
        ));
    }
    let begun = Instant::now();
    // What happens while this reads is kept by the watch. The node that answers
    // is another one, which reads what is there afterwards.
    let mut learner = learner(&LiveNode::new().map_err(|error| super::no_procfs(&error))?);
    let read = watch_for_learning(watch.as_mut(), &mut learner, begun, time, &stop);
    if let Some(watched) = read.value.as_ref().filter(|_| !global.json) {
        say(&format!("watched all listeners for {}: {}", spoken_ms(watched.ms), watched.summary()));
    }
    Ok(read)
}

/// Why where connections lead can't be watched, if it can't: readings of the node
/// show neither who accepts nor who connects.
fn unable(sources: &[SourceReport], gaps: &[Gap]) -> Option<Gap> {
    if sources.iter().all(|source| source.name != node::COMPARISON) {
        return None;
    }
    let why = gaps.iter().find(|gap| gap.source.kind == GapKind::Ebpf);
    let reason = why.map_or("it is not available", |gap| gap.reason.as_str());
    let remedy = why.and_then(|gap| gap.remedy.clone());
    let gap = Gap::new(
        Impact::Way,
        GapKind::Watch,
        format!("learning where connections lead needs eBPF, and {reason}"),
    );
    Some(
        gap.remedy(remedy.unwrap_or_else(|| "see what is missing: whereis-port doctor".to_owned())),
    )
}

/// A learner that knows every TCP listener of the node and who holds it.
fn learner(node: &dyn Node) -> Learner {
    let netns: Vec<_> = node.netns().value.iter().map(|netns| netns.id).collect();
    let filter = SocketFilter { proto: Some(Proto::Tcp), ports: None };
    let sockets = node.sockets(&netns, &filter).value;
    let inodes = sockets
        .iter()
        .map(|socket| socket.inode)
        .collect::<std::collections::BTreeSet<SocketInode>>();
    Learner::new(&sockets, &node.owners(&inodes).value)
}

/// Learns from a watch that runs since `begun`, for `time` or until `stop` is set.
fn watch_for_learning(
    watch: &mut dyn Watch,
    learner: &mut Learner,
    begun: Instant,
    time: Duration,
    stop: &AtomicBool,
) -> Read<Option<Watched>> {
    let mut dropped = super::drops::DropCauses::default();
    loop {
        let left = time.saturating_sub(begun.elapsed());
        let last = left.is_zero() || stop.load(Ordering::Relaxed);
        // What happened before the end belongs to it.
        for event in watch.next(if last { Duration::ZERO } else { left.min(TICK) }) {
            learner.take(&event);
            dropped.take(&event);
        }
        if last {
            break;
        }
    }
    let mut watched = learner.finish(begun.elapsed(), watch.lost());
    watched.dropped = dropped.finish();
    // Whatever could not be watched hides no port: those are read as ever.
    let mut gaps: Vec<Gap> =
        watch.gaps().into_iter().map(|gap| Gap { impact: Impact::Way, ..gap }).collect();
    if watched.lost > 0 {
        gaps.push(Gap::new(
            Impact::Way,
            GapKind::Watch,
            format!(
                "{} lost while watching: more happened than was counted",
                counted(watched.lost, "event")
            ),
        ));
    }
    Read { value: Some(watched), gaps }
}

/// Writes a line to standard error, whether or not anybody reads it.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests;
