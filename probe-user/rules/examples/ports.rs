//! Which ports do these rules take?
//!
//!     cargo run --example ports                # of a few rules that are in the example
//!     cargo run --example ports -- RECORDING   # of what `whereis-port list --record` wrote

mod common;

use std::net::SocketAddr;
use std::process::ExitCode;

use common::{STEPS, few_rules, line, load};
use whereis_port_rules::{Snapshot, ports};

const USAGE: &str = "usage: ports [RECORDING]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    common::report(answer(&args))
}

/// The answer to what was typed, or what is wrong with that.
pub(crate) fn answer(args: &[String]) -> Result<String, String> {
    let rules = match args {
        [] => few_rules(),
        [path] if !path.starts_with('-') => load(path)?,
        _ => return Err(USAGE.to_owned()),
    };
    if rules.rulesets().is_empty() {
        return Err("no packet rules are in it".to_owned());
    }
    Ok(told(&rules))
}

fn told(rules: &Snapshot) -> String {
    let mut text = String::new();
    for ruleset in rules.rulesets() {
        let source = rules.limited(STEPS);
        let found = ports::taken(&source, ruleset, &rules.here(ruleset.netns));
        line(&mut text, 0, &format!("network namespace {}:", ruleset.netns));
        for port in &found.ports {
            line(&mut text, 2, &of_port(port));
        }
        for many in &found.many {
            let which = if many.surely { "" } else { "some of " };
            line(
                &mut text,
                2,
                &format!("{which}{} {} ports: {}", many.ports.len(), many.proto, many.rule),
            );
        }
        if let Some(rule) = &found.unclear {
            line(&mut text, 2, &format!("not known which ports: {rule}"));
        }
        if source.is_used_up() {
            line(&mut text, 2, "and more: they take too many steps to be followed");
        } else if found.ports.is_empty() && found.many.is_empty() && found.unclear.is_none() {
            line(&mut text, 2, "none");
        }
    }
    text
}

/// `tcp 8080 → 172.17.0.2:80 (Docker, published port)`.
fn of_port(port: &ports::TakenPort) -> String {
    let mut words = match port.address {
        Some(address) => format!("{} {}", port.proto, SocketAddr::new(address, port.port)),
        None if port.ipv6 => format!("{} {} of IPv6", port.proto, port.port),
        None => format!("{} {}", port.proto, port.port),
    };
    if port.refused {
        words.push_str(" refused");
        words.push_str(&port.meaning.refused.map(|why| format!(": {why}")).unwrap_or_default());
    } else {
        let targets: Vec<String> =
            port.targets.iter().map(|to| SocketAddr::from(*to).to_string()).collect();
        words.push_str(&format!(" → {}", targets.join(", ")));
        let left = port.total.saturating_sub(targets.len());
        if left > 0 {
            words.push_str(&format!(" and {left} more"));
        }
    }
    let service = port.meaning.service.as_ref().map(|s| format!("{}/{}", s.namespace, s.name));
    let means: Vec<&str> =
        [port.meaning.by, port.meaning.what, service.as_deref()].into_iter().flatten().collect();
    if !means.is_empty() {
        words.push_str(&format!(" ({})", means.join(", ")));
    }
    words
}
