//! The thread that follows the port that is looked at.

use std::sync::mpsc::Receiver;

use tokio::sync::mpsc::UnboundedSender;

use super::source::Source;
use crate::model::{PortRange, Query, Scope};
use crate::resolve;
use crate::view::tui::state::{Answered, Message, Question};

/// Answers until nobody asks any more.
pub(super) fn run(source: &Source, asked: &Receiver<Question>, out: &UnboundedSender<Message>) {
    while let Ok(mut question) = asked.recv() {
        // What was asked before the last question is not looked at any more.
        while let Ok(later) = asked.try_recv() {
            question = later;
        }
        let answered = super::caught(|| answer(source, &question));
        let message = match answered {
            Ok(answered) => Message::Answer(Box::new(answered)),
            Err(why) => Message::Failed(why),
        };
        if out.send(message).is_err() {
            return;
        }
    }
}

/// The answer to one question.
pub(super) fn answer(source: &Source, question: &Question) -> Result<Answered, String> {
    let node = source.open()?;
    let proto = question.proto.map(|proto| format!("/{proto}")).unwrap_or_default();
    let query = Query {
        text: format!("{}{proto}", question.port),
        ports: PortRange::one(question.port),
        proto: question.proto,
        scope: Scope::Everywhere,
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
