//! What `wait` and `free` say, for people.

use std::fmt::Write as _;
use std::time::Duration;

use super::style::Style;
use whereis_port_model::{FreePorts, SkipReason};

/// How it is with one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waited {
    /// The target, as it was typed.
    pub query: String,
    /// Whether it is as was waited for; `None` when that is not known.
    pub is_so: Option<bool>,
    /// Why, in short. Untrusted.
    pub text: String,
}

/// How a wait ended, for each target.
#[derive(Debug)]
pub struct WaitReport<'a> {
    /// Whether one of them was enough.
    pub any: bool,
    /// How long was waited.
    pub took: Duration,
    /// Each target, in their order.
    pub waited: &'a [Waited],
}

impl WaitReport<'_> {
    /// Whether what was waited for has come.
    pub fn is_so(&self) -> bool {
        let is_so = |waited: &Waited| waited.is_so == Some(true);
        if self.any { self.waited.iter().any(is_so) } else { self.waited.iter().all(is_so) }
    }
}

/// A line for each target.
pub fn text(document: &WaitReport<'_>, style: &Style) -> String {
    let mut text = String::new();
    let after = match document.is_so() {
        true => format!("after {:.1} s", document.took.as_secs_f64()),
        false => format!("within {:.1} s", document.took.as_secs_f64()),
    };
    for one in document.waited {
        let is_so = match one.is_so {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not known",
        };
        let _ = writeln!(
            text,
            "{}: {is_so}, {after}: {}",
            style.text(&one.query),
            style.text(&one.text)
        );
    }
    text
}

/// A line for each port.
pub fn ports(free: &FreePorts) -> String {
    let mut text = String::new();
    for port in &free.ports {
        let _ = writeln!(text, "{port}");
    }
    text
}

/// How many ports were passed over, and why.
pub fn passed(free: &FreePorts, wanted: usize, style: &Style) -> String {
    let mut text = format!(
        "{} of {wanted} found from {} to {}",
        free.ports.len(),
        free.range.first,
        free.range.last
    );
    for (at, (why, count)) in free.passed.iter().enumerate() {
        let before = if at == 0 { "; passed over: " } else { ", " };
        let _ = write!(text, "{before}{count} {}", reason(*why));
    }
    let looked_at = free.ports.len() + free.passed.iter().map(|(_, count)| count).sum::<usize>();
    let all = usize::from(free.range.last.0 - free.range.first.0) + 1;
    if free.ports.len() < wanted && looked_at < all {
        text.push_str("; the rest was not looked at: name another range");
    }
    text.push('\n');
    for gap in &free.gaps {
        let _ = writeln!(
            text,
            "not known ({}): {}",
            style.text(&gap.source.to_string()),
            style.text(&gap.reason)
        );
    }
    text
}

fn reason(passed: SkipReason) -> &'static str {
    match passed {
        SkipReason::Ephemeral => "given to whoever asks for none (ip_local_port_range)",
        SkipReason::Reserved => "reserved (ip_local_reserved_ports)",
        SkipReason::NodePort => "of Kubernetes' NodePorts",
        SkipReason::Privileged => "privileged",
        SkipReason::InUse => "in use",
        SkipReason::Published => "published by containers",
        SkipReason::TakenByRules => "taken by packet rules",
        SkipReason::NotKnown => "of which it is not known",
        SkipReason::Lost => "taken meanwhile",
    }
}
