//! `doctor`: what can be read here, what can't, and what would give it.

use whereis_port_model::{Capability, Host, SourceReport};

use super::layout::{TextPage, pad, pad_left, shorten, width};
use super::style::{Ink, Style};
use super::words;

/// Columns for the labels.
const LABEL: usize = 14;

/// The capabilities that matter, and what is missing without each.
const CAPABILITIES: [(Capability, &str); 4] = [
    (Capability::CapSysPtrace, "owners of other users' sockets, and their namespaces"),
    (
        Capability::CapSysAdmin,
        "sockets, addresses and links of other network namespaces, all at once",
    ),
    (Capability::CapNetAdmin, "packet rules, tracked connections, WireGuard ports"),
    (Capability::CapDacReadSearch, "state files and sockets of container runtimes of other users"),
];

/// The source that tells who holds a socket.
const OWNERS: &str = "descriptors";

/// Whether `/proc` hides other users' processes from who runs the tool.
fn is_hidden(host: &Host) -> bool {
    host.hidepid > 0 && !host.has(Capability::CapSysPtrace)
}

/// `sources`, with what no source can tell of itself: all descriptors that can
/// be seen are read, and yet some processes can't be seen at all.
pub fn judged(host: &Host, mut sources: Vec<SourceReport>) -> Vec<SourceReport> {
    let unseen = if !host.init_pid_ns {
        Some((
            "processes outside this PID namespace can't be seen, so their sockets have no owner here",
            "run in the machine's initial PID namespace",
        ))
    } else if is_hidden(host) {
        Some((
            "/proc hides other users' processes (hidepid), so their sockets have no owner here",
            "run as root, or with CAP_SYS_PTRACE",
        ))
    } else {
        None
    };
    let Some((reason, remedy)) = unseen else { return sources };
    let at = sources.iter().position(|source| source.name == OWNERS).unwrap_or_else(|| {
        sources.push(SourceReport {
            name: OWNERS.to_owned(),
            ok: true,
            reason: None,
            remedy: None,
            command: None,
            ms: 0.0,
            detail: String::new(),
            namespaces: None,
        });
        sources.len() - 1
    });
    let Some(owners) = sources.get_mut(at) else { return sources };
    owners.ok = false;
    // What is unreadable among the visible is said too, behind it.
    owners.reason = Some(match owners.reason.take() {
        Some(known) => format!("{reason}; and {known}"),
        None => reason.to_owned(),
    });
    owners.remedy = Some(match owners.remedy.take() {
        Some(known) if known != remedy => format!("{remedy}; {known}"),
        _ => remedy.to_owned(),
    });
    sources
}

/// The report: the node, the rights, and each source.
pub fn report(host: &Host, sources: &[SourceReport], style: &Style) -> String {
    let mut page = TextPage::new(style);
    let mut entry = |label: &str, ink: Ink, text: &str| page.entry("", (label, LABEL, ink), text);
    entry("host", Ink::Label, &style.text(&host.hostname));
    entry("kernel", Ink::Label, &style.text(&host.kernel));
    let netns = if host.host_netns == Some(host.own_netns) {
        format!("host ({})", host.own_netns)
    } else if host.host_netns.is_some() {
        format!("{}, which is not the host's", host.own_netns)
    } else {
        format!("{} (whether it is the host's could not be told)", host.own_netns)
    };
    entry("own netns", Ink::Label, &netns);
    entry(
        "user",
        Ink::Label,
        &match host.euid {
            0 => "root (uid 0)".to_owned(),
            uid => {
                format!("uid {uid}, not root: sudo whereis-port doctor shows what root can read")
            }
        },
    );
    let pid_ns = if host.init_pid_ns && is_hidden(host) {
        "the initial one"
    } else if host.init_pid_ns {
        "the initial one: every process can be seen"
    } else {
        "not the initial one: owners outside it can't be seen; ask on the host itself to name them"
    };
    entry("PID namespace", if host.init_pid_ns { Ink::Label } else { Ink::Warn }, pid_ns);
    if host.hidepid > 0 && !is_hidden(host) {
        let text = format!("{}, which CAP_SYS_PTRACE sees through", host.hidepid);
        entry("hidepid", Ink::Label, &text);
    }
    if is_hidden(host) {
        let text = format!(
            "/proc hides other users' processes (hidepid={}): run as root, or mount it with gid= of a group that you are in",
            host.hidepid
        );
        entry("hidepid", Ink::Warn, &text);
    }
    if host.wsl {
        entry(
            "WSL2",
            Ink::Warn,
            "Windows and the other distributions hold ports here whose owners can't be seen",
        );
    }

    page.line("");
    page.line(&style.paint(Ink::Strong, "rights"));
    let columns =
        CAPABILITIES.iter().map(|(c, _)| words::capability(*c).len()).max().unwrap_or(0) + 2;
    for (capability, gives) in CAPABILITIES {
        let (state, ink) = if host.has(capability) {
            ("  ok       ", Ink::Good)
        } else {
            ("  missing  ", Ink::Warn)
        };
        let lead = format!("{state}{}", words::capability(capability));
        page.entry("", (&lead, state.len() + columns, ink), gives);
    }
    if CAPABILITIES.iter().any(|(capability, _)| !host.has(*capability)) {
        page.line("           what is missing comes with root, or with the capability alone");
    }
    page.line("");
    page.line(&style.paint(Ink::Strong, "sources"));
    if self::sources(&mut page, sources, host) == 0 {
        page.line("");
        page.line("Everything that was tried could be read.");
    }
    page.finish()
}

/// Writes one entry for each source: whether it could be read, how long that
/// took, what it gave, and why not. Returns how many could not be read.
pub(super) fn sources(page: &mut TextPage<'_>, sources: &[SourceReport], host: &Host) -> usize {
    let style = page.style;
    let longest = (page.room(0) / 3).min(32);
    let names: Vec<String> = sources
        .iter()
        .map(|s| shorten(&style.text(&s.name), longest, style.glyphs().ellipsis))
        .collect();
    let times: Vec<String> = sources.iter().map(|s| format!("{:.1} ms", s.ms)).collect();
    let columns = names.iter().map(|n| width(n)).max().unwrap_or(0);
    let time_columns = times.iter().map(String::len).max().unwrap_or(0);
    let mut failed = 0;
    for ((source, name), time) in sources.iter().zip(&names).zip(&times) {
        let (state, ink) =
            if source.ok { ("  ok      ", Ink::Good) } else { ("  not ok  ", Ink::Warn) };
        let lead = format!("{state}{}  {}", pad(name, columns), pad_left(time, time_columns));
        let detail = words::singular(&source.detail);
        let detail = if detail.is_empty() { detail } else { style.text(&detail) };
        page.entry("", (&lead, width(&lead) + 2, ink), &detail);
        if !source.ok {
            failed += 1;
            let reason = source
                .reason
                .as_ref()
                .map_or_else(|| "no reason given".to_owned(), |r| style.text(r));
            page.entry("          ", ("reason:", 8, Ink::Label), &reason);
            if let Some(remedy) = &source.remedy {
                let mut text = style.text(&words::remedy(remedy, host));
                if let Some(command) = &source.command {
                    text.push_str(&format!(" {}", style.command(command)));
                }
                page.entry("          ", ("remedy:", 8, Ink::Label), &text);
            }
        }
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{HOSTILE, host, hostile, sources, user_host};
    use whereis_port_model::escape::is_unsafe;

    fn at(width: usize) -> Style {
        Style { width: Some(width), ..Style::PLAIN }
    }

    #[test]
    fn reports() {
        insta::assert_snapshot!("doctor_root_120", report(&host(), &sources(), &at(120)));
        let user =
            Host { init_pid_ns: false, hidepid: 2, wsl: true, host_netns: None, ..user_host() };
        let judged = judged(&user, sources());
        insta::assert_snapshot!("doctor_user_80", report(&user, &judged, &at(80)));
    }

    #[test]
    fn all_is_well_is_said() {
        let good = sources().into_iter().filter(|s| s.ok).collect::<Vec<_>>();
        assert!(
            report(&host(), &good, &Style::PLAIN)
                .contains("Everything that was tried could be read")
        );
        assert!(!report(&host(), &sources(), &Style::PLAIN).contains("Everything that was tried"));
    }

    #[test]
    fn unseen_processes_make_the_owners_uncertain() {
        let good = || sources().into_iter().filter(|s| s.ok).collect::<Vec<_>>();
        assert_eq!(judged(&host(), good()), good());
        let behind_root = Host { hidepid: 2, ..host() };
        assert_eq!(judged(&behind_root, good()), good());
        for (unseeing, word) in [
            (Host { hidepid: 2, ..user_host() }, "hidepid"),
            (Host { init_pid_ns: false, ..host() }, "PID namespace"),
        ] {
            let judged = judged(&unseeing, good());
            let owners = judged.iter().find(|s| s.name == OWNERS).unwrap();
            assert!(!owners.ok && owners.remedy.is_some(), "{owners:?}");
            assert!(owners.reason.as_ref().unwrap().contains(word), "{owners:?}");
            let text = report(&unseeing, &judged, &Style::PLAIN);
            assert!(!text.contains("every process can be seen"), "{text}");
            assert!(!text.contains("Everything that was tried"), "{text}");
        }
    }

    #[test]
    fn every_missing_capability_is_named_with_what_it_would_give() {
        let text = report(&user_host(), &sources(), &Style::PLAIN);
        for (capability, gives) in CAPABILITIES {
            assert!(text.contains(words::capability(capability)) && text.contains(gives), "{text}");
        }
        assert_eq!(text.matches("missing  CAP_").count(), CAPABILITIES.len(), "{text}");
    }

    #[test]
    fn lines_fit_and_hostile_text_is_harmless() {
        let (_, host, sources) = hostile();
        assert!(host.hostname.contains(HOSTILE));
        for columns in 40..130 {
            let text = report(&host, &sources, &at(columns));
            assert_eq!(text.chars().find(|c| *c != '\n' && is_unsafe(*c)), None, "{text:?}");
            for line in text.lines() {
                assert!(width(line) <= columns, "{columns}: {line:?}");
            }
        }
    }
}
