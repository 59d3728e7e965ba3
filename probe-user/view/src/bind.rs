//! Whether a socket could be bound, as text for people.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::layout::TextPage;
use super::style::{Ink, Style};
use super::text::gaps;
use super::{doctor, held};
use whereis_port_model::{Bind, BindError, BindNote, Host, SourceReport, Verdict};

const INDENT: &str = "  ";
const LABEL: usize = 21;

/// The text for some binds.
pub fn text(
    binds: &[Bind],
    host: &Host,
    style: &Style,
    verbose: bool,
    sources: &[SourceReport],
) -> String {
    let mut page = TextPage::new(style);
    for bind in binds {
        one(&mut page, bind, host, verbose);
    }
    if verbose && !sources.is_empty() {
        page.line("");
        page.line(&style.paint(Ink::Strong, "what was read"));
        doctor::sources(&mut page, sources, host);
    }
    page.finish()
}

fn one(page: &mut TextPage<'_>, bind: &Bind, host: &Host, verbose: bool) {
    let style = page.style;
    let mut line = style.text(&statement(bind));
    if bind.netns.id != host.own_netns {
        let _ = write!(line, ", in netns {}", style.netns(&bind.netns));
    }
    page.paragraph("", "    ", Some(Ink::Strong), &line);
    let mut entry = |label: &str, ink, text: &str| page.entry(INDENT, (label, LABEL, ink), text);
    for one in &bind.held {
        entry("held:", Ink::Warn, &style.text(&held::sentence(one)));
    }
    if bind.more_held > 0 {
        entry("held:", Ink::Warn, &format!("and {} more", bind.more_held));
    }
    for one in &bind.notes {
        entry("note:", Ink::Label, &style.text(&note(bind, one)));
    }
    if let Some(fix) = bind.fix.as_ref().filter(|_| bind.works() != Some(true)) {
        entry("fix:", Ink::Label, &style.advice(fix));
    }
    if bind.is_wrong() {
        let said = if bind.predicted == Some(true) { "that it works" } else { "that it fails" };
        let text = format!(
            "the kernel's rules as they are known here say {said}: a security module, a program of a cgroup, or a change meanwhile"
        );
        entry("note:", Ink::Warn, &text);
    }
    gaps(page, &bind.gaps, host, Verdict::NotFound, verbose);
}

/// What becomes of it, in one line. Untrusted.
pub(crate) fn statement(bind: &Bind) -> String {
    let ask = &bind.ask;
    let place = if bind.everywhere {
        format!("{}/{} at all addresses", ask.port, ask.proto)
    } else {
        match &bind.zone {
            Some(zone) => format!("[{}%{zone}]:{}/{}", ask.address, ask.port, ask.proto),
            None => format!("{}/{}", SocketAddr::new(ask.address, ask.port.0), ask.proto),
        }
    };
    let tried = if bind.tried.is_some() { ", as was tried" } else { "" };
    let error = match &bind.tried {
        Some(tried) => tried.err(),
        None => bind.error,
    };
    match bind.works() {
        Some(true) => format!("{place}: a bind works{tried}"),
        Some(false) => {
            let why = error.map_or_else(String::new, |error| format!(": {}", words(error)));
            format!("{place}: a bind fails{tried}{why}")
        }
        None => format!("{place}: it is not known whether a bind works"),
    }
}

/// What becomes of it and why, in one line without its place. Untrusted.
pub fn in_short(bind: &Bind) -> String {
    if let Some(first) = bind.held.first() {
        return format!("{}: {}", bind.ask.proto, held::sentence(first));
    }
    match bind.works() {
        Some(true) => "a bind works".to_owned(),
        Some(false) => bind.error.map_or_else(|| "a bind fails".to_owned(), words),
        None => "it is not known whether a bind works".to_owned(),
    }
}

fn words(error: BindError) -> String {
    let what = match error {
        BindError::InUse => "the address is in use",
        BindError::Privileged => "the port is privileged",
        BindError::NotAvailable => "the address is not there",
        BindError::Invalid => "such an address can't be bound to so",
        BindError::NoFamily => "the kernel has no IPv6",
        BindError::NotPermitted => "it is not permitted",
        BindError::Other(_) => return error.name(),
    };
    format!("{what} ({})", error.name())
}

/// What is worth knowing of it. Untrusted.
pub(crate) fn note(bind: &Bind, note: &BindNote) -> String {
    match note {
        BindNote::Ephemeral(range) => format!(
            "the kernel gives this port, one of {} to {}, to whoever asks for none: it may be taken when it is wanted",
            range.first, range.last
        ),
        BindNote::Reserved => {
            "it is reserved: the kernel gives it to nobody who asks for none".to_owned()
        }
        BindNote::Privileged(from) => format!(
            "ports below {from} need CAP_NET_BIND_SERVICE, which user {} does not have here",
            bind.ask.uid
        ),
        BindNote::PrivilegedNotKnown => {
            "it is not known whether this port needs CAP_NET_BIND_SERVICE".to_owned()
        }
        BindNote::NotOwn(own, more) if own.is_empty() && *more == 0 => {
            format!("no interface has {}, or any other address of its kind", bind.ask.address)
        }
        BindNote::NotOwn(own, more) => {
            let more = if *more > 0 { format!(" and {more} more") } else { String::new() };
            let none = bind.zone.as_ref().map_or_else(
                || format!("no interface has {}", bind.ask.address),
                |zone| format!("{zone} does not have {}", bind.ask.address),
            );
            format!("{none}: there is {}{more}", own.join(", "))
        }
        BindNote::OwnNotKnown => {
            format!("it is not known whether {} is one of the namespace's", bind.ask.address)
        }
        BindNote::NeedsInterface => {
            format!("{} is of one interface alone: which one has to be said", bind.ask.address)
        }
        BindNote::NoIpv6 => "the kernel has no IPv6".to_owned(),
        BindNote::OnlyFor { ipv6: false } => {
            "for IPv4 alone it works: bind to 0.0.0.0".to_owned()
        }
        BindNote::OnlyFor { ipv6: true } => {
            "for IPv6 alone it works: bind to [::] with IPV6_V6ONLY".to_owned()
        }
        BindNote::TakenByRules(what) => format!(
            "what is sent to the port is taken before it gets to a socket, by {what}"
        ),
        BindNote::OptionsNotKnown => {
            "it depends on SO_REUSEADDR and SO_REUSEPORT of the other socket, which nothing tells: --try does"
                .to_owned()
        }
        BindNote::Program(one) => {
            format!("{one} may refuse it, and is not evaluated: --try tells")
        }
        BindNote::ProgramsNotRead => {
            "programs of the own cgroup that may refuse it could not be looked for".to_owned()
        }
    }
}

#[cfg(test)]
mod tests;
