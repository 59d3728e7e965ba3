//! The thread that follows the port that is looked at.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

use super::slot::Slot;
use super::source::NodeSource;
use crate::model::{PortRange, Query, Scope};
use crate::resolve;
use crate::view::tui::state::{Answered, Message, Question};

/// How often it is looked whether something has changed that is watched.
const LOOK: Duration = Duration::from_millis(250);
/// How often it is told how the APIs are watched.
const TELL: Duration = Duration::from_secs(1);
/// The shortest time between two answers of which nobody has asked for the second.
const SHORTEST: Duration = Duration::from_millis(500);
/// A port that nobody has asked about for so long is not looked at any more: the screen asks
/// again within less.
const LOOKED_AT: Duration = Duration::from_secs(15);

/// Answers until nobody listens any more, and again when something changes that is watched.
pub(super) fn run(source: &NodeSource, asked: &Slot<Question>, out: &Sender<Message>) {
    let mut last: Option<(Question, Instant)> = None;
    let mut known = source.changes();
    let mut answered_at = Instant::now();
    let mut told_at = None;
    loop {
        if told_at.is_none_or(|at: Instant| at.elapsed() >= TELL)
            && let Some(report) = source.report()
        {
            told_at = Some(Instant::now());
            if out.blocking_send(Message::Kube(Box::new(report))).is_err() {
                return;
            }
        }
        let question = match asked.take(LOOK) {
            Some(question) => {
                last = Some((question.clone(), Instant::now()));
                question
            }
            None => match &last {
                Some((_, at)) if at.elapsed() > LOOKED_AT => {
                    last = None;
                    continue;
                }
                Some((question, _))
                    if source.changes() != known && answered_at.elapsed() >= SHORTEST =>
                {
                    question.clone()
                }
                _ => continue,
            },
        };
        // What changes meanwhile is a reason to answer again.
        known = source.changes();
        let answered = super::caught(|| answer(source, &question));
        answered_at = Instant::now();
        let message = match answered {
            Ok(answered) => Message::Answer(Box::new(answered)),
            Err(why) => Message::Failed(why),
        };
        if out.blocking_send(message).is_err() {
            return;
        }
    }
}

/// The answer to one question.
pub(super) fn answer(source: &NodeSource, question: &Question) -> Result<Answered, String> {
    let node = source.open()?;
    let proto = question.proto.map(|proto| format!("/{proto}")).unwrap_or_default();
    let query = Query {
        text: format!("{}{proto}", question.port),
        ports: PortRange::one(question.port),
        proto: question.proto,
        scope: Scope::Everywhere,
        zone: None,
        name: None,
        subject: None,
    };
    let mut answer = match &question.row {
        Some(row) => resolve::answer_at(&*node, &query, row.netns, row.address),
        None => resolve::answer(&*node, &query),
    };
    resolve::add_flows(&*node, &mut answer, false);
    Ok(Answered {
        question: question.clone(),
        answer,
        host: node.host().value,
        sources: node.sources(),
    })
}
