//! What is different between two times, for people.

use whereis_port_model::{Change, ChangeKind, Difference, Vantage};

use super::layout::TextPage;
use super::style::{Ink, Style};

const INDENT: &str = "  ";
const LABEL: usize = 10;

/// The text for what is different; `verbose` tells of owners that were started anew, too.
pub fn text(difference: &Difference, style: &Style, verbose: bool) -> String {
    let mut page = TextPage::new(style);
    let shown = |change: &&Change| verbose || change.kind != ChangeKind::Restarted;
    let all: Vec<&Change> = difference.changes.iter().filter(shown).collect();
    let real = difference.changes.iter().filter(|c| c.kind != ChangeKind::Restarted).count();
    let headline = match (real, difference.is_unsure()) {
        (0, false) => "nothing is different".to_owned(),
        (0, true) => "nothing is different as far as could be read".to_owned(),
        (1, _) => "1 difference".to_owned(),
        (n, _) => format!("{n} differences"),
    };
    page.line(&style.paint(Ink::Strong, &headline));
    for change in all {
        let ink = match change.kind {
            ChangeKind::Came | ChangeKind::Went => Ink::Strong,
            ChangeKind::Restarted => Ink::Dim,
            _ => Ink::Label,
        };
        page.entry(INDENT, (change.kind.as_str(), LABEL, ink), &style.text(&words(change)));
    }
    for (side, reasons) in &difference.not_known {
        for reason in reasons {
            let text = format!("{side}: {}", style.text(reason));
            page.entry(INDENT, ("not known:", LABEL + 1, Ink::Warn), &text);
        }
    }
    page.finish()
}

/// A change in one line. Untrusted.
pub(super) fn words(change: &Change) -> String {
    let owner = change.owner.as_deref().unwrap_or("somebody who is not known");
    let place = format!("{}/{} in {}", change.port, change.proto, change.netns);
    let was = change.before.as_deref().unwrap_or("nothing");
    let is = change.after.as_deref().unwrap_or("nothing");
    let who = change.from.map_or("", |from| match from {
        Vantage::Outside => "other machines",
        Vantage::Containers => "containers",
        Vantage::Node => "processes of the node",
        Vantage::Loopback => "loopback",
    });
    let mut text = match change.kind {
        ChangeKind::Came => format!("{place}: {owner} has it"),
        ChangeKind::Went => format!("{place}: {owner} had it"),
        ChangeKind::Owner => format!("{place}: was {was}, is {is}"),
        ChangeKind::Address => format!("{place} ({owner}): was at {was}, is at {is}"),
        ChangeKind::Way => format!("{place} ({owner}): was taken by {was}, is by {is}"),
        ChangeKind::Reach => format!("{place} ({owner}), for {who}: was {was}, is {is}"),
        ChangeKind::Restarted => format!("{place} ({owner}): was {was}, is {is}"),
    };
    if !change.sure {
        text.push_str(" (not sure: not everything could be read)");
    }
    text
}
