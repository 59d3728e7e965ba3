//! Replacing what tells whose node a recording was made on.

mod certificates;
mod kube;

use std::collections::BTreeMap;

use super::names::{PseudonymKind, Pseudonyms};
use super::scrub::program;
use super::{RecordedFacts, Recording};
use whereis_port_model::{
    Attachment, CgroupPath, Command, Container, ContainerRef, LinkKind, Listens, OtherPlace, Pod,
    Process, SocketFile, SourceReport,
};

/// Replaces the names of hosts, users, containers, images, networks, pods,
/// clusters and interfaces, ids, addresses and all arguments of processes, each
/// the same way wherever it stands, so that every question gets an answer of the
/// same shape. What stays: the names of programs, ports, numeric ids, versions,
/// and the plain words of the tool's own messages.
pub fn redact(recording: &mut Recording) {
    if recording.redacted {
        return;
    }
    let mut names = Pseudonyms::default();
    let facts = &mut recording.facts;
    without_rules(facts);
    // Names first, and where they are first meant: that gives the telling
    // pseudonyms, and messages are searched for all of them.
    names.give_out(facts);
    names.namespaces(facts);
    names.processes(facts);
    names.containers(facts);
    names.kube(facts);
    names.certificates(facts);
    names.messages(facts, &mut recording.sources);
    recording.redacted = true;
}

/// Leaves out packet rules and connections. Addresses are in rules as bytes under
/// masks, in ranges and in sets, and other ones in their place would not be the same
/// rules: a replay says that they were not read.
fn without_rules(facts: &mut RecordedFacts) {
    // A node without any is told as such.
    facts.rulesets.retain(|asked| asked.read.value.is_empty());
    facts.chains.clear();
    facts.sets.clear();
    facts.set_elements.clear();
    facts.set_element.clear();
    facts.ip_sets.clear();
    facts.frontends.retain(|asked| asked.read.value.is_empty());
    facts.cilium.retain(|asked| asked.read.value.is_empty());
    facts.cilium_policies.clear();
    facts.flows.clear();
    facts.route.clear();
    facts.input_routes.clear();
}

/// Every process of a recording.
fn processes(facts: &mut RecordedFacts) -> impl Iterator<Item = &mut Process> {
    facts.processes.iter_mut().flat_map(|a| &mut a.read.value)
}

/// Every container of a recording.
fn containers(facts: &mut RecordedFacts) -> impl Iterator<Item = &mut Container> {
    let listed = facts.containers.iter_mut().flat_map(|read| &mut read.value);
    let relayed = facts.relays.iter_mut().flat_map(|a| &mut a.read.value.containers);
    let unpublished = facts.unpublished.iter_mut().flat_map(|read| &mut read.value);
    let listed = listed.chain(relayed).chain(unpublished);
    listed.chain(facts.container.iter_mut().filter_map(|a| a.read.value.as_mut()))
}

fn replace(text: &mut String, with: impl FnOnce(&str) -> String) {
    *text = with(text);
}

fn replace_some(text: &mut Option<String>, with: impl FnOnce(&str) -> String) {
    if let Some(text) = text {
        *text = with(text);
    }
}

impl Pseudonyms {
    /// Gives pseudonyms to the names that others quote.
    fn give_out(&mut self, facts: &mut RecordedFacts) {
        let hostname = facts.host.value.hostname.clone();
        // `localhost` is what a host without a name is called.
        if hostname != "localhost" {
            facts.host.value.hostname = self.name(PseudonymKind::Host, &hostname);
        }
        for process in processes(facts) {
            replace_some(&mut process.user, |user| match user {
                "root" => user.to_owned(),
                user => self.name(PseudonymKind::User, user),
            });
        }
        for container in containers(facts) {
            for (label, value) in &container.labels {
                if CLUSTERS.contains(&label.as_str()) {
                    self.label_value(label, value);
                }
            }
            if let Some(name) = &container.name {
                self.name(PseudonymKind::Container, name);
            }
            self.name(PseudonymKind::Container, &container.id);
        }
    }

    /// Namespaces and what is in them.
    fn namespaces(&mut self, facts: &mut RecordedFacts) {
        replace_some(&mut facts.host.value.own_netns_name, |name| {
            self.component(PseudonymKind::Netns, name)
        });
        for netns in facts.netns.iter_mut().flat_map(|read| &mut read.value) {
            replace_some(&mut netns.name, |name| self.component(PseudonymKind::Netns, name));
            netns.paths.iter_mut().for_each(|path| replace(path, |path| self.path(path)));
        }
        for socket in facts.sockets.iter_mut().flat_map(|a| &mut a.read.value) {
            socket.address = self.ip(socket.address);
        }
        for found in facts.port_sockets.iter_mut().flat_map(|a| &mut a.read.value) {
            found.socket.address = self.ip(found.socket.address);
            if let Some(peer) = &mut found.peer {
                peer.set_ip(self.ip(peer.ip()));
            }
        }
        for socket in facts.other_sockets.iter_mut().flat_map(|a| &mut a.read.value) {
            match &mut socket.at {
                OtherPlace::Path(path, _) => replace(path, |path| self.path(path)),
                OtherPlace::Abstract(name) => replace(name, |name| self.path(name)),
                OtherPlace::Protocol(_, address) => *address = address.map(|ip| self.ip(ip)),
                OtherPlace::Device(..) => {}
            }
        }
        for asked in facts.socket_files.iter_mut() {
            replace(&mut asked.asked, |path| self.path(path));
            if let SocketFile::Unknown(why) = &mut asked.read.value {
                replace(why, |why| self.message(why));
            }
        }
        for link in facts.links.iter_mut().flat_map(|a| &mut a.read.value) {
            replace(&mut link.name, |name| self.interface(name));
            link.hardware = link.hardware.map(|address| self.hardware(address));
            if let LinkKind::Other(kind) = &mut link.kind {
                replace(kind, |kind| self.message(kind));
            }
        }
        for address in facts.addresses.iter_mut().flat_map(|a| &mut a.read.value) {
            address.address = self.ip(address.address);
        }
        for route in facts.routes.iter_mut().flat_map(|a| &mut a.read.value) {
            route.destination = self.ip(route.destination);
            route.gateway = route.gateway.map(|gateway| self.ip(gateway));
        }
        for one in facts.neighbours.iter_mut().flat_map(|a| &mut a.read.value) {
            one.address = self.ip(one.address);
            one.hardware = one.hardware.map(|address| self.hardware(address));
        }
        for route in facts.local_routes.iter_mut().flat_map(|a| &mut a.read.value) {
            route.destination = self.ip(route.destination);
        }
        for rule in facts.policy_rules.iter_mut().flat_map(|a| &mut a.read.value) {
            rule.from = rule.from.map(|(network, prefix)| (self.ip(network), prefix));
            rule.to = rule.to.map(|(network, prefix)| (self.ip(network), prefix));
            replace_some(&mut rule.iif, |name| self.interface(name));
        }
        for settings in facts.settings.iter_mut().flat_map(|a| &mut a.read.value) {
            for name in &mut settings.route_localnet {
                replace(name, |name| self.interface(name));
            }
            let forced = settings.force_forward6.iter_mut().flatten();
            let named = forced.chain(settings.unforwarding4.iter_mut().flatten());
            for name in settings.proxy_arp.iter_mut().flatten().chain(named) {
                replace(name, |name| self.interface(name));
            }
            let ignoring = settings.arp_ignore.iter_mut().flatten();
            for one in settings.reverse_path.iter_mut().flatten().chain(ignoring) {
                replace(&mut one.device, |name| self.interface(name));
            }
        }
        for attached in facts.attached.iter_mut().flat_map(|a| &mut a.read.value) {
            match &mut attached.what {
                Attachment::Program(one) => replace(&mut one.name, |name| self.bpf_program(name)),
                Attachment::Filter { kind, actions } => {
                    replace(kind, program);
                    actions.iter_mut().for_each(|action| replace(action, program));
                }
                Attachment::Qdisc(kind) => replace(kind, program),
            }
        }
        for port in facts.kernel_ports.iter_mut().flat_map(|a| &mut a.read.value) {
            replace_some(&mut port.interface, |name| self.interface(name));
        }
        for watched in facts.observed.iter_mut().flat_map(|read| &mut read.value) {
            for listener in &mut watched.accepted {
                listener.address = self.ip(listener.address);
            }
            for seen in &mut watched.observed {
                seen.address = self.ip(seen.address);
                seen.to.set_ip(self.ip(seen.to.ip()));
            }
            for dropped in &mut watched.dropped {
                dropped.address = self.ip(dropped.address);
                // It quotes rules, and is found out anew.
                dropped.by = None;
                let what = &mut dropped.what;
                what.source = what.source.map(|source| self.ip(source));
                if let Some(original) = &mut what.original {
                    original.set_ip(self.ip(original.ip()));
                }
                replace_some(&mut what.device, |name| self.interface(name));
            }
        }
    }

    fn processes(&mut self, facts: &mut RecordedFacts) {
        for process in processes(facts) {
            replace(&mut process.comm, program);
            process.cmdline = self.command_line(&process.cmdline);
            replace_some(&mut process.exe, |exe| self.program_path(exe));
            replace_some(&mut process.cwd, |cwd| self.path(cwd));
            self.cgroup_path(process.cgroup.as_mut());
            process.monitored.iter_mut().for_each(|one| self.reference(&mut one.container));
            process.ancestors.iter_mut().for_each(|a| replace(&mut a.comm, program));
        }
        for found in facts.provenances.iter_mut().filter_map(|a| a.read.value.as_mut()) {
            if let Some(package) = &mut found.package {
                replace_some(&mut package.name, program);
                replace_some(&mut package.why, |why| self.message(why));
            }
            if let Some(repository) = &mut found.repository {
                replace(&mut repository.directory, |path| self.path(path));
                replace_some(&mut repository.branch, |name| self.name(PseudonymKind::Name, name));
                replace_some(&mut repository.commit, |id| self.id(id));
            }
        }
        for unit in facts.socket_units.iter_mut().flat_map(|read| &mut read.value) {
            replace(&mut unit.name, |name| self.cgroup(name));
            replace(&mut unit.service, |name| self.cgroup(name));
            replace(&mut unit.file, |path| self.path(path));
            for listens in &mut unit.listens {
                match listens {
                    Listens::Port(_, address, _) => *address = address.map(|ip| self.ip(ip)),
                    Listens::Path(path) => replace(path, |path| self.path(path)),
                }
            }
        }
        for asked in facts.cgroup_paths.iter_mut() {
            self.cgroup_path(asked.read.value.as_mut());
        }
        for one in facts.cgroup_programs.iter_mut().flat_map(|a| &mut a.read.value).flatten() {
            replace(&mut one.program.name, |name| self.bpf_program(name));
            self.cgroup_path(one.cgroup.as_mut());
        }
    }

    /// A BPF program's name; the ones of systemd and Cilium stay.
    fn bpf_program(&mut self, name: &str) -> String {
        let is_usual = ["", "sd_fw_ingress", "sd_fw_egress"].contains(&name);
        match is_usual || name.starts_with("cil_") {
            true => program(name),
            false => self.name(PseudonymKind::Name, name),
        }
    }

    fn cgroup_path(&mut self, path: Option<&mut CgroupPath>) {
        if let Some(CgroupPath(path)) = path {
            *path = self.cgroup(path);
        }
    }

    fn containers(&mut self, facts: &mut RecordedFacts) {
        for asked in facts.container.iter_mut() {
            asked.asked.chain.iter_mut().for_each(|r| self.reference(r));
        }
        for container in containers(facts) {
            self.container(container);
        }
        for relay in facts.relays.iter_mut().map(|asked| &mut asked.read.value) {
            replace_some(&mut relay.socket, |path| self.path(path));
            for forwarded in &mut relay.forwards {
                forwarded.host_ip = forwarded.host_ip.map(|ip| self.ip(ip));
                forwarded.to = forwarded.to.map(|ip| self.ip(ip));
            }
        }
    }

    fn reference(&mut self, reference: &mut ContainerRef) {
        replace(&mut reference.id, |id| self.name(PseudonymKind::Container, id));
        if let Some(pod) = &mut reference.pod {
            replace(&mut pod.uid, |uid| self.name(PseudonymKind::Pod, uid));
        }
    }

    fn container(&mut self, container: &mut Container) {
        replace(&mut container.id, |id| self.name(PseudonymKind::Container, id));
        replace_some(&mut container.name, |name| self.name(PseudonymKind::Container, name));
        replace_some(&mut container.image, |image| self.name(PseudonymKind::Image, image));
        let labels = std::mem::take(&mut container.labels);
        container.labels = labels
            .iter()
            .map(|(label, value)| (self.label(label), self.label_value(label, value)))
            .collect::<BTreeMap<_, _>>();
        for network in &mut container.networks {
            replace(&mut network.name, |name| self.network(name));
            network.addresses.iter_mut().for_each(|address| *address = self.ip(*address));
        }
        for port in &mut container.ports {
            port.host_ip = port.host_ip.map(|ip| self.ip(ip));
        }
        replace_some(&mut container.network_mode, |mode| match mode.split_once(':') {
            Some(("container", id)) => {
                format!("container:{}", self.name(PseudonymKind::Container, id))
            }
            Some(("ns", path)) => format!("ns:{}", self.path(path)),
            _ => self.network(mode),
        });
        container.parents.iter_mut().for_each(|parent| self.reference(parent));
        if let Some(pod) = &mut container.pod {
            self.pod(pod);
        }
        replace(&mut container.via.place, |place| self.message(place));
    }

    fn pod(&mut self, pod: &mut Pod) {
        replace_some(&mut pod.namespace, |name| {
            self.kubernetes_name(PseudonymKind::Namespace, name)
        });
        replace_some(&mut pod.name, |name| self.name(PseudonymKind::Pod, name));
        replace_some(&mut pod.uid, |uid| self.name(PseudonymKind::Pod, uid));
    }

    /// A network's name; the ones that engines give stay.
    fn network(&mut self, name: &str) -> String {
        const USUAL: [&str; 9] = [
            "bridge",
            "host",
            "none",
            "default",
            "private",
            "podman",
            "pasta",
            "slirp4netns",
            "kind",
        ];
        if USUAL.contains(&name) {
            name.to_owned()
        } else {
            self.name(PseudonymKind::Network, name)
        }
    }

    /// A label's key; the ones that tools look for stay.
    fn label(&mut self, label: &str) -> String {
        const TOOLS: [&str; 9] = [
            "io.x-k8s.kind.",
            "k3d.",
            "minikube.sigs.k8s.io",
            "talos.",
            "io.kubernetes.",
            "io.cri-containerd.",
            "io.podman.",
            "com.docker.compose.",
            "org.opencontainers.image.",
        ];
        let of_tool = TOOLS.iter().any(|t| label.starts_with(t) || label.ends_with(t));
        let plain = label.bytes().all(|b| b.is_ascii_lowercase() || b".-_".contains(&b));
        let known = of_tool && (plain || KEYS.contains(&label));
        if known { label.to_owned() } else { self.name(PseudonymKind::Label, label) }
    }

    fn label_value(&mut self, label: &str, value: &str) -> String {
        const USUAL: [&str; 14] = [
            "",
            "true",
            "false",
            "control-plane",
            "controlplane",
            "worker",
            "server",
            "agent",
            "loadbalancer",
            "external-load-balancer",
            "init",
            "container",
            "sandbox",
            "podsandbox",
        ];
        if USUAL.contains(&value) {
            value.to_owned()
        } else if CLUSTERS.contains(&label) {
            self.name(PseudonymKind::Cluster, value)
        } else {
            self.kubernetes_name(PseudonymKind::Value, value)
        }
    }

    /// What the tool said, of everything.
    fn messages(&mut self, facts: &mut RecordedFacts, sources: &mut [SourceReport]) {
        for port in facts.kernel_ports.iter_mut().flat_map(|a| &mut a.read.value) {
            replace(&mut port.what, |what| self.message(what));
            replace(&mut port.source, |source| self.message(source));
        }
        for gap in facts.gaps() {
            replace(&mut gap.source.name, |name| self.message(name));
            replace(&mut gap.reason, |reason| self.message(reason));
            replace_some(&mut gap.remedy, |remedy| self.message(remedy));
            self.command(&mut gap.command);
        }
        for source in sources {
            replace(&mut source.name, |name| self.message(name));
            replace_some(&mut source.reason, |reason| self.message(reason));
            replace_some(&mut source.remedy, |remedy| self.message(remedy));
            self.command(&mut source.command);
            replace(&mut source.detail, |detail| self.message(detail));
        }
    }

    fn command(&mut self, command: &mut Option<Command>) {
        for word in command.iter_mut().flat_map(Command::words_mut) {
            replace(word, |word| self.message(word));
        }
    }
}

/// The labels whose value is a cluster's name.
const CLUSTERS: [&str; 4] =
    ["io.x-k8s.kind.cluster", "k3d.cluster", "name.minikube.sigs.k8s.io", "talos.cluster.name"];

/// Labels that are kept although they have digits.
const KEYS: [&str; 9] = [
    "io.x-k8s.kind.cluster",
    "io.x-k8s.kind.role",
    "k3d.cluster",
    "k3d.role",
    "name.minikube.sigs.k8s.io",
    "role.minikube.sigs.k8s.io",
    "mode.minikube.sigs.k8s.io",
    "created_by.minikube.sigs.k8s.io",
    "io.kubernetes.docker.type",
];
