//! What is said when nothing was found: how sure that is, and what to do next.

use crate::layout::TextPage;
use crate::shell;
use crate::style::Ink;
use whereis_port_model::{Answer, Host, Impact, Proto, Scope, SourceReport, Subject, Verdict};

pub(super) fn write(
    page: &mut TextPage<'_>,
    answer: &Answer,
    host: &Host,
    sources: &[SourceReport],
) {
    let what = subject(answer);
    let query = page.style.text(&answer.query.text);
    if let Some(subject) = &answer.query.subject {
        of_subject(page, answer, subject);
        return;
    }
    let (statement, next) = if answer.verdict == Verdict::NotFound {
        let statement = not_found(
            &what,
            (&answer.query.scope, answer.query.zone.as_deref()),
            namespaces(answer, sources),
        );
        (format!("{statement}, {}", surely(answer, host)), not_found_next(answer))
    } else {
        (unknown(&what, answer), unknown_next(answer, host))
    };
    let statement = page.style.text(&statement);
    page.paragraph("", "    ", Some(Ink::Strong), &format!("{query}: {statement}"));
    page.entry("  ", ("next:", 6, Ink::Label), &page.style.text(&next));
}

/// Nothing leads to what somebody wanted to know all ports of.
fn of_subject(page: &mut TextPage<'_>, answer: &Answer, subject: &Subject) {
    let sure = if answer.verdict == Verdict::NotFound {
        "and all that could was readable"
    } else {
        "but not everything could be read, so something may"
    };
    let statement = format!("no port leads to {subject}, {sure}");
    let statement = page.style.text(&statement);
    page.paragraph("", "    ", Some(Ink::Strong), &statement);
    let next = match subject {
        Subject::Process(pid) => format!("does it run? ps -fp {pid}; `whereis-port list` shows what listens"),
        Subject::Container(_) => "`whereis-port list` has the containers that listen; docker ps and crictl ps those that run".to_owned(),
        Subject::Pod(..) => "kubectl get pods -A -o wide shows where it runs; ask on that node".to_owned(),
        Subject::Service(..) => "kubectl get svc,endpointslices -A shows whether it exists and who serves it".to_owned(),
        Subject::Name(_) => "a name has to be whole: `whereis-port list --process PART` and `--container PART` look for a part of it".to_owned(),
        Subject::Cluster(_) => "`whereis-port list -o wide` names the clusters that are seen here".to_owned(),
    };
    page.entry("  ", ("next:", 6, Ink::Label), &next);
}

/// What was looked for: `TCP or UDP port 30518`.
fn subject(answer: &Answer) -> String {
    let proto = match answer.query.proto {
        Some(Proto::Tcp) => "TCP",
        Some(Proto::Udp) => "UDP",
        None => "TCP or UDP",
    };
    let ports = answer.query.ports;
    if ports.first == ports.last {
        format!("{proto} port {}", ports.first)
    } else {
        format!("{proto} port from {} to {}", ports.first, ports.last)
    }
}

fn not_found(what: &str, (scope, zone): (&Scope, Option<&str>), namespaces: String) -> String {
    match scope {
        Scope::Everywhere => {
            format!("nothing listens on {what} in {namespaces}")
        }
        Scope::Address(address) if address.is_unspecified() => {
            let all = if address.is_ipv6() { "all addresses" } else { "all IPv4 addresses" };
            format!("nothing listens on {what} at {all} ({address})")
        }
        Scope::Address(address) => {
            let zone = zone.map_or_else(String::new, |zone| format!("%{zone}"));
            format!("nothing takes packets to {address}{zone}, {what}")
        }
    }
}

/// Whether somebody could be bound there: nobody listens is not all that is to be said.
fn surely(answer: &Answer, host: &Host) -> String {
    let here = answer.held.iter().filter(|held| held.netns.id == host.own_netns);
    if here.clone().any(|held| held.blocks == Some(true)) {
        return "but it is taken: a bind fails".to_owned();
    }
    if here.count() > 0 {
        return "but something has it: whether a bind works is not known".to_owned();
    }
    if let Some(first) = answer.held.first() {
        return format!("but it is taken in netns {}", first.netns);
    }
    if answer.gaps.iter().any(|gap| gap.impact == Impact::Bind) {
        return "and all that could listen was readable".to_owned();
    }
    "and all that could hold it was readable".to_owned()
}

fn not_found_next(answer: &Answer) -> String {
    match answer.query.scope {
        _ if !answer.held.is_empty() => {
            let ask = match answer.query.ports.first == answer.query.ports.last {
                true => typed(answer),
                false => "PORT".to_owned(),
            };
            format!("`whereis-port bind {ask}` says who could be bound to it all the same")
        }
        Scope::Everywhere => "`whereis-port list` shows what does listen. If a container or service should be behind this port: is it running, and is the port published on this node?".to_owned(),
        Scope::Address(_) => format!(
            "`whereis-port {}` looks on every address and in every namespace; `whereis-port list` shows what does listen",
            answer.query.ports.first
        ),
    }
}

fn unknown(what: &str, answer: &Answer) -> String {
    let count = answer.gaps.iter().filter(|gap| gap.impact == Impact::Port).count();
    let unread = match count {
        0 => "not everything could be read".to_owned(),
        1 => "1 thing that could hold it could not be read".to_owned(),
        n => format!("{n} things that could hold it could not be read"),
    };
    format!("no listener on {what} was found, but {unread}, so something may be there")
}

/// The target as it can be typed again: it may be pasted from anywhere.
fn typed(answer: &Answer) -> String {
    shell::word(&answer.query.text).unwrap_or_else(|| "TARGET".to_owned())
}

fn unknown_next(answer: &Answer, host: &Host) -> String {
    if host.euid != 0 {
        return format!("read it all as root: sudo whereis-port {}", typed(answer));
    }
    if !host.init_pid_ns {
        return "ask on the host itself: from inside a container or another PID namespace not all of it is visible".to_owned();
    }
    if answer.gaps.iter().any(|gap| gap.remedy.is_some()) {
        "what would close each gap is said behind the arrow below".to_owned()
    } else {
        "`whereis-port doctor` says what can be read here and what can't".to_owned()
    }
}

/// Where was looked: how many namespaces were read, by the report of the source that found them.
fn namespaces(answer: &Answer, sources: &[SourceReport]) -> String {
    if let Some(netns) = &answer.within {
        return format!("netns {netns}, the only one that was asked for");
    }
    match sources.iter().find_map(|source| source.namespaces) {
        Some(1) => "the one network namespace of this node".to_owned(),
        Some(n) => format!("any of the {n} network namespaces of this node"),
        None => "any network namespace of this node".to_owned(),
    }
}
