//! What a cluster says, as text.
//!
//! ```text
//! 30518/tcp  Service default/web: NodePort of Service default/web, kube-proxy (iptables)
//!   on 198 of 200 nodes: n001, n002, …
//!     → 10.244.1.5:80 pod default/web-1, nginx
//!   differs on 1 node: n042
//!     → 10.244.7.9:80 no node that answered says more of it
//!   missing on 1 node: n077
//!
//! not answered, 3 of 203 nodes:
//!   n101, n102: no complete answer within 10 s; fix: allow more with --timeout
//!   n150: no agent's pod is on it
//! ```

use std::collections::BTreeMap;

use whereis_port_model::fleet::{Fleet, Merged, MergedPort, NodeFailure, PathEnd, PortPath};
use whereis_port_model::{Command, Ending, Verdict};

use super::layout::TextPage;
use super::style::{Ink, Style};

/// How many nodes are named in one place, when not everything was asked for.
const NAMED: usize = 12;

/// How many backends are shown of one entry, when not everything was asked for.
const BACKENDS: usize = 16;

/// The text for what `fleet` says. With `verbose`, all nodes and backends are named.
pub fn text(fleet: &Fleet, merged: &[Merged], style: &Style, verbose: bool) -> String {
    let answered = fleet.reports.iter().filter(|report| report.outcome.is_ok()).count();
    let mut page = TextPage::new(style);
    let view = FleetView { style, verbose, answered };
    for (at, answer) in merged.iter().enumerate() {
        if at > 0 {
            page.line("");
        }
        view.answer(&mut page, answer);
    }
    view.silent(&mut page, fleet);
    page.finish()
}

/// Where a way leads, in one line: what is told while other nodes are still asked.
pub fn headline(way: &PortPath) -> String {
    let style = Style::PLAIN;
    let name = match &way.service {
        Some(service) => format!("Service {}/{}", service.namespace, service.name),
        None => names(&way.backend).join(", "),
    };
    let address = way.backend.address.as_deref().filter(|_| way.service.is_some());
    let to = address.map_or_else(String::new, |address| format!(" → {}", style.text(address)));
    format!("{}/{}  {}{to}", way.port, way.proto, style.text(&name))
}

/// How the answer of many nodes is shown.
struct FleetView<'a> {
    style: &'a Style,
    verbose: bool,
    answered: usize,
}

impl FleetView<'_> {
    fn answer(&self, page: &mut TextPage<'_>, answer: &Merged) {
        if answer.verdict != Verdict::Found {
            let query = self.style.text(&answer.query);
            let line = match (answer.verdict, self.answered) {
                (Verdict::NotFound, nodes) => {
                    format!("{query}: surely nothing, on {}", counted(nodes))
                }
                (_, 0) => format!("{query}: not known, for no node answered"),
                (_, nodes) => format!(
                    "{query}: not found on the {} that answered, but not every node could tell",
                    counted(nodes)
                ),
            };
            page.paragraph("", "  ", Some(Ink::Warn), &line);
        }
        for (at, group) in answer.groups.iter().enumerate() {
            if at > 0 {
                page.line("");
            }
            self.group(page, group);
        }
        // Many nodes lack the same right or file.
        let mut unsure: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for missing in &answer.unsure {
            unsure.entry(&missing.why).or_default().push(missing.node.clone());
        }
        for (why, nodes) in unsure {
            let text = format!("{}: {}", self.nodes(&nodes), self.style.text(why));
            let lead = self.style.paint(Ink::Warn, "can't tell: ");
            page.paragraph(&format!("  {lead}"), "    ", None, &text);
        }
    }

    fn group(&self, page: &mut TextPage<'_>, group: &MergedPort) {
        let port = self.style.paint(Ink::Strong, &format!("{}/{}", group.port, group.proto));
        let name = match &group.service {
            Some(service) => {
                let port =
                    service.port.as_deref().map_or_else(String::new, |p| format!(" port {p}"));
                format!("Service {}/{}{port}: {}", service.namespace, service.name, group.taken_by)
            }
            None => {
                let first = group.entries.first().and_then(|entry| entry.backends.first());
                first.map(names).unwrap_or_default().join(", ")
            }
        };
        page.paragraph(&format!("{port}  "), "    ", None, &self.style.text(&name));
        for (at, entry) in group.entries.iter().enumerate() {
            let nodes = self.nodes(&entry.nodes);
            let everywhere = entry.nodes.len() == self.answered;
            let lead = match at {
                0 if everywhere && entry.nodes.len() > 1 && !self.verbose => {
                    format!("on all {} that answered", counted(self.answered))
                }
                0 => format!("on {} of {}: {nodes}", entry.nodes.len(), counted(self.answered)),
                _ => format!("differs on {}: {nodes}", counted(entry.nodes.len())),
            };
            page.paragraph("  ", "    ", (at > 0).then_some(Ink::Warn), &lead);
            // What is no Service has its name above.
            if group.service.is_some() || entry.backends.iter().any(|b| stops(b).is_some()) {
                self.backends(page, &entry.backends);
            }
        }
        if !group.missing.is_empty() {
            let lead = self.style.paint(Ink::Warn, "missing on ");
            let text = format!("{}: {}", counted(group.missing.len()), self.nodes(&group.missing));
            page.paragraph(&format!("  {lead}"), "    ", None, &text);
        }
    }

    fn backends(&self, page: &mut TextPage<'_>, backends: &[PathEnd]) {
        let arrow = self.style.glyphs().arrow;
        let most = if self.verbose { usize::MAX } else { BACKENDS };
        for backend in backends.iter().take(most) {
            let mut text = backend.address.as_deref().unwrap_or("nowhere").to_owned();
            let names = names(backend).join(", ");
            if !names.is_empty() {
                text = format!("{text} {names}");
            }
            page.paragraph(&format!("    {arrow} "), "      ", None, &self.style.text(&text));
        }
        if backends.len() > most {
            page.line(&format!("    and {} more; -v shows them", backends.len() - most));
        }
    }

    /// What would help, behind a reason.
    fn fix(&self, failure: &NodeFailure) -> Option<String> {
        let mut text = format!("; fix: {}", self.style.text(failure.remedy.as_ref()?));
        if let Some(command) = &failure.command {
            text.push_str(&format!(" {}", self.style.command(command)));
        }
        Some(text)
    }

    /// Who did not answer, by reason.
    fn silent(&self, page: &mut TextPage<'_>, fleet: &Fleet) {
        let mut by_reason: BTreeMap<(String, Option<String>), Vec<String>> = BTreeMap::new();
        for report in &fleet.reports {
            if let Err(failure) = &report.outcome {
                // What differs between nodes alone is the pod's name.
                let pod = report.pod.as_deref().unwrap_or("\0");
                let reason = failure.reason.replace(pod, "POD");
                let names = |command: &Command| command.words().iter().any(|word| word == pod);
                let same = !failure.command.as_ref().is_some_and(names);
                let fix = self.fix(failure).filter(|_| same);
                by_reason.entry((reason, fix)).or_default().push(report.node.clone());
            }
        }
        let silent: usize = by_reason.values().map(Vec::len).sum();
        if silent > 0 {
            page.line("");
            let line = format!("not answered, {silent} of {}:", counted(fleet.reports.len()));
            page.line(&self.style.paint(Ink::Warn, &line));
        }
        let mut by_reason: Vec<_> = by_reason.into_iter().collect();
        by_reason.sort_by_key(|(_, nodes)| std::cmp::Reverse(nodes.len()));
        for ((reason, fix), nodes) in by_reason {
            let fix = fix.unwrap_or_default();
            let text = format!("{}: {}{fix}", self.nodes(&nodes), self.style.text(&reason));
            page.paragraph("  ", "    ", None, &text);
        }
        if let Some(failure) = &fleet.nodes_unknown {
            page.line("");
            let text = format!("nodes without an agent are not known: {}", failure.reason);
            let fix = self.fix(failure).unwrap_or_default();
            let text = self.style.text(&text) + &fix;
            page.paragraph("", "  ", Some(Ink::Warn), &text);
        }
        if fleet.reports.is_empty() {
            page.line("");
            let text = "no agent was found; whereis-port cluster manifest | kubectl apply -f - puts one on each node";
            page.paragraph("", "  ", Some(Ink::Warn), text);
        }
    }

    /// Names of nodes, all or the first of them.
    fn nodes(&self, nodes: &[String]) -> String {
        let most = if self.verbose { usize::MAX } else { NAMED };
        let mut named: Vec<String> =
            nodes.iter().take(most).map(|node| self.style.text(node)).collect();
        if nodes.len() > most {
            named.push(format!("and {} more", nodes.len() - most));
        }
        named.join(", ")
    }
}

fn counted(nodes: usize) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}

/// Why nothing takes what is sent there.
fn stops(backend: &PathEnd) -> Option<&str> {
    match backend.ending {
        Ending::Nothing | Ending::Stopped => {
            Some(backend.why.as_deref().unwrap_or("nothing is there"))
        }
        _ => None,
    }
}

/// What is known of what is at the end, most telling first.
fn names(backend: &PathEnd) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    if let Some(pod) = &backend.pod {
        let namespace = backend.pod_namespace.as_deref().unwrap_or("?");
        names.push(format!("pod {namespace}/{pod}"));
    } else if let Some(container) = &backend.container {
        names.push(format!("container {container}"));
    }
    names.extend(backend.component.clone().or_else(|| backend.process.clone()));
    names.extend(backend.unit.clone());
    names.extend(stops(backend).map(str::to_owned));
    if names.is_empty() {
        names.push(match backend.ending {
            Ending::Kernel => "the kernel itself".to_owned(),
            Ending::NotReadable => "an owner that can't be read".to_owned(),
            // Its node would say more, but did not answer, or is none of this cluster.
            Ending::Elsewhere => "no node that answered says more of it".to_owned(),
            _ => "an owner that is not known".to_owned(),
        });
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use whereis_port_model::fleet::{FailureKind, NodeAnswer, NodeReply, Report, merge};
    use whereis_port_model::target::{HostNames, parse_target};
    use whereis_port_model::{Proto, Service};

    fn report(node: &str, address: Option<&str>, pod: Option<&str>) -> Report {
        let ways = address.map(|address| PortPath {
            proto: Proto::Tcp,
            port: 30518,
            by_rules: true,
            taken_by: "NodePort, kube-proxy (iptables)".into(),
            service: Some(Service { namespace: "default".into(), name: "web".into(), port: None }),
            backend: PathEnd {
                address: Some(address.into()),
                ending: if pod.is_some() { Ending::Process } else { Ending::Elsewhere },
                pod: pod.map(str::to_owned),
                pod_namespace: pod.map(|_| "default".into()),
                process: pod.map(|_| "nginx".into()),
                ..PathEnd::default()
            },
        });
        let verdict = if ways.is_some() { Verdict::Found } else { Verdict::NotFound };
        let said = NodeReply { verdict, ways: ways.into_iter().collect(), cut: 0, gaps: vec![] };
        let answer = NodeAnswer { tool_version: "0".into(), said: vec![said] };
        Report { node: node.into(), pod: Some(format!("agent-{node}")), outcome: Ok(answer), ms: 1 }
    }

    fn failed(node: &str, reason: &str) -> Report {
        let failure = NodeFailure::new(
            FailureKind::NotReady,
            reason.replace("POD", &format!("agent-{node}")),
        )
        .remedy("see")
        .command(Command::new("kubectl describe pod").name(format!("agent-{node}")));
        Report { outcome: Err(failure), ..report(node, None, None) }
    }

    fn shown(reports: Vec<Report>) -> String {
        let fleet = Fleet { reports, nodes_unknown: None };
        let queries = parse_target("30518", &HostNames::default()).unwrap();
        let merged = merge(&fleet, &queries);
        text(&fleet, &merged, &Style::PLAIN, false)
    }

    #[test]
    fn what_differs_and_who_is_silent_stands_out() {
        insta::assert_snapshot!(shown(vec![
            report("n1", Some("10.0.0.1:80"), Some("web-1")),
            report("n2", Some("10.0.0.1:80"), None),
            report("n3", Some("10.0.0.9:80"), None),
            report("n4", None, None),
            failed("n5", "its agent POD is not ready: ImagePullBackOff"),
            failed("n6", "its agent POD is not ready: ImagePullBackOff"),
        ]), @r"
        30518/tcp  Service default/web: NodePort, kube-proxy (iptables)
          on 2 of 4 nodes: n1, n2
            → 10.0.0.1:80 pod default/web-1, nginx
          differs on 1 node: n3
            → 10.0.0.9:80 no node that answered says more of it
          missing on 1 node: n4

        not answered, 2 of 6 nodes:
          n5, n6: its agent POD is not ready: ImagePullBackOff
        ");
    }

    #[test]
    fn nothing_anywhere_and_nobody_there() {
        let nothing = shown(vec![report("n1", None, None), report("n2", None, None)]);
        assert_eq!(nothing, "30518: surely nothing, on 2 nodes\n");
        assert!(shown(vec![]).contains("cluster manifest | kubectl apply -f -"));
        let unsure = shown(vec![report("n1", None, None), failed("n2", "late")]);
        assert!(unsure.starts_with("30518: not found on the 1 node that answered"), "{unsure}");
    }

    #[test]
    fn names_from_nodes_can_not_move_the_cursor() {
        let text = shown(vec![
            report("n1\u{1b}[2J", Some("10.0.0.1:80"), Some("w\u{202e}eb\u{1b}]0;x\u{7}")),
            failed("n2", "said \u{1b}[31m\nnot answered, 0"),
        ]);
        let bad = |c: char| c != '\n' && whereis_port_model::escape::is_unsafe(c);
        assert!(!text.chars().any(bad), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("not answered, 0")), "{text}");
        let way =
            report("n", Some("a\u{1b}b"), None).outcome.unwrap().said.remove(0).ways.remove(0);
        assert!(!headline(&way).chars().any(bad));
    }
}
