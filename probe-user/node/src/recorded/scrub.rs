//! Texts that have names inside: paths, cgroups, messages, command lines.

use std::net::{IpAddr, SocketAddr};

use super::names::{PseudonymKind, Pseudonyms, ids_in, is_id};
use whereis_port_model::forward::{Word, WordPart, telling_words};

/// What stands for a text of which nothing is shown.
pub(super) const REDACTED: &str = "[redacted]";

/// Words of paths, cgroups and unit names that are the same on every machine.
const COMMON: &str = " \
    api app apps backend background besteffort bin boot bridge buildkit burstable cgroup \
    cgroupfs cgroups children cilium_host cilium_net cilium_vxlan cmdline cni cni0 comm config \
    conmon container containerd containers cri crio cron crond cwd daemon db dbus default dev \
    docker docker0 dockerd etc eth exe fd fdinfo fib_trie flannel fs fuse getty graphical grpc \
    guaranteed home host http https if_inet6 incus incusbr0 init io ipvs json k0s k3s k8s kube \
    kubelet kubepods lib libexec libpod lo local log logind lxc lxcfs lxd lxdbr0 machine \
    machined maps metadata mnt moby monitor mountinfo nerdctl net netns networkd networks \
    nf_conntrack nodelocaldns none ns nspawn opt overlay payload plugins pod podinit podman \
    podman0 pods private proc rancher resolved rke2 root rootfs rootless route run runc \
    runtime sbin scope self serial service session share slice snap sock socket socketd srv \
    ssh sshd stat state status storage supervisor sys system systemd task tasks tcp tcp6 \
    timesyncd tmp tty udevd udp udp6 uid_map unified unix user userdata usr v1 v2 var version \
    virbr0 volatile xdg ";

/// Whether a word names nobody.
fn is_common(word: &str) -> bool {
    let number = word.bytes().all(|b| b.is_ascii_digit());
    number || (COMMON.contains(&format!(" {word} ")) && !word.contains(' '))
}

fn is_separator(c: char) -> bool {
    matches!(c, '-' | '.' | '_' | ':' | '@' | '+' | '=' | '[' | ']')
}

impl Pseudonyms {
    /// A part of a path or a name made of parts: kept when it is common, with
    /// its ids replaced, or replaced as a whole.
    pub(super) fn component(&mut self, kind: PseudonymKind, text: &str) -> String {
        // First, or somebody called `docker` would hide the engine's cgroup.
        if is_common(text) {
            return text.to_owned();
        }
        if let Some(known) = self.known(text) {
            return known.to_owned();
        }
        let ids = ids_in(text);
        if ids.is_empty() {
            if let Some(address) = self.address(text) {
                return address;
            }
            if text.split(is_separator).all(is_common) && !holds_address(text) {
                return text.to_owned();
            }
            return self.name(kind, text);
        }
        // What is around an id says what the id is of: only unknown words go.
        let mut out = String::new();
        let mut at = 0;
        for (start, end) in ids {
            out.push_str(&self.words(kind, &text[at..start]));
            out.push_str(&self.id(&text[start..end]));
            at = end;
        }
        out + &self.words(kind, &text[at..])
    }

    /// Each word between separators on its own.
    fn words(&mut self, kind: PseudonymKind, text: &str) -> String {
        let mut out = String::new();
        for part in text.split_inclusive(is_separator) {
            let word = part.trim_end_matches(is_separator);
            out.push_str(&if is_common(word) { word.to_owned() } else { self.name(kind, word) });
            out.push_str(&part[word.len()..]);
        }
        out
    }

    /// A path in the file system.
    pub(super) fn path(&mut self, path: &str) -> String {
        let parts: Vec<_> =
            path.split('/').map(|p| self.component(PseudonymKind::Path, p)).collect();
        parts.join("/")
    }

    /// A program's path: its directories are replaced, its name is needed.
    pub(super) fn program_path(&mut self, path: &str) -> String {
        match path.rsplit_once('/') {
            Some((directory, name)) => format!("{}/{}", self.path(directory), program(name)),
            None => program(path),
        }
    }

    /// A host by address or name, with or without brackets or a port.
    pub(super) fn host(&mut self, host: &str) -> String {
        if matches!(host, "" | "*" | "localhost") {
            return host.to_owned();
        }
        match self.address(host) {
            Some(address) => address,
            None => self.name(PseudonymKind::Host, host),
        }
    }

    /// An address as texts have it, `None` when it is none.
    fn address(&mut self, text: &str) -> Option<String> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Some(self.ip(ip).to_string());
        }
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return Some(SocketAddr::new(self.ip(socket.ip()), socket.port()).to_string());
        }
        let (ip, prefix) = text.split_once('/')?;
        let (ip, prefix) = (ip.parse::<IpAddr>().ok()?, prefix.parse::<u8>().ok()?);
        Some(format!("{}/{prefix}", self.ip(ip)))
    }

    /// A cgroup's path: what tells runtimes, pods and units apart stays.
    pub(super) fn cgroup(&mut self, path: &str) -> String {
        let mut inside_lxc = false;
        let parts: Vec<_> = path
            .split('/')
            .map(|part| {
                let named = inside_lxc;
                inside_lxc = matches!(part, "lxc" | "lxc.payload" | "lxc.monitor");
                if named && !part.is_empty() {
                    return self.name(PseudonymKind::Container, part);
                }
                self.cgroup_component(part)
            })
            .collect();
        parts.join("/")
    }

    fn cgroup_component(&mut self, part: &str) -> String {
        // Machines: the rest is the name, which systemd escapes.
        for (prefix, suffix) in [
            ("lxc.payload.", ""),
            ("lxc.monitor.", ""),
            ("machine-", ".scope"),
            ("systemd-nspawn@", ".service"),
        ] {
            let name = part.strip_prefix(prefix).and_then(|p| p.strip_suffix(suffix));
            if let Some(name) = name.filter(|n| !n.is_empty() && ids_in(n).is_empty()) {
                let name = self.name(PseudonymKind::Container, &name.replace("\\x2d", "-"));
                let name = if suffix.is_empty() { name } else { name.replace('-', "\\x2d") };
                return format!("{prefix}{name}{suffix}");
            }
        }
        for suffix in [".service", ".scope", ".slice", ".socket", ".mount", ".swap", ".timer"] {
            if let Some(stem) = part.strip_suffix(suffix) {
                return self.component(PseudonymKind::Unit, stem) + suffix;
            }
        }
        self.component(PseudonymKind::Unit, part)
    }

    /// An interface's name.
    pub(super) fn interface(&mut self, name: &str) -> String {
        const USUAL: [&str; 10] =
            ["eth", "ens", "eno", "wlan", "tap", "tun", "wg", "bond", "ifb", "dummy"];
        let usual = USUAL.iter().filter_map(|p| name.strip_prefix(p));
        if usual.into_iter().any(|rest| rest.len() <= 3 && rest.bytes().all(|b| b.is_ascii_digit()))
        {
            return name.to_owned();
        }
        self.component(PseudonymKind::Interface, name)
    }

    /// The tool's own words around something that may be quoted in them. Plain
    /// words stay unless they have a pseudonym; what looks like anything else is
    /// replaced, and so is all in double quotes.
    pub(super) fn message(&mut self, text: &str) -> String {
        let mut out = String::new();
        for (at, part) in text.split('"').enumerate() {
            if at % 2 == 1 {
                out.push_str(&format!("\"{REDACTED}\""));
                continue;
            }
            for piece in part.split_inclusive(is_delimiter) {
                let word = piece.trim_end_matches(is_delimiter);
                out.push_str(&self.message_word(word));
                out.push_str(&piece[word.len()..]);
            }
        }
        out
    }

    fn message_word(&mut self, word: &str) -> String {
        if let Some(replaced) = self.known_or_address(word) {
            return replaced;
        }
        let core = word.trim_matches(['.', ':']);
        let start = word.find(core).unwrap_or_default();
        let (before, after) = (&word[..start], &word[start + core.len()..]);
        format!("{before}{}{after}", self.message_core(core))
    }

    fn message_core(&mut self, core: &str) -> String {
        if let Some(replaced) = self.known_or_address(core) {
            return replaced;
        }
        // `tcp/udp` and `processes/threads` are words, not paths.
        let plain = !core.starts_with('/') && core.split('/').all(is_plain);
        if plain {
            return core.to_owned();
        }
        let kind = if core.contains('/') { PseudonymKind::Path } else { PseudonymKind::Name };
        let parts: Vec<_> = core.split('/').map(|part| self.component(kind, part)).collect();
        parts.join("/")
    }

    fn known_or_address(&mut self, word: &str) -> Option<String> {
        self.known(word).map(str::to_owned).or_else(|| self.address(word))
    }

    /// A command line: the program's name, and of a forwarder what it forwards.
    pub(super) fn command_line(&mut self, argv: &[String]) -> Vec<String> {
        if let Some(words) = telling_words(argv) {
            return words.iter().map(|word| self.word(word)).collect();
        }
        let rest = argv.iter().skip(1).map(|_| REDACTED.to_owned());
        let title = argv.first().map(|title| program(file_name(first_word(title))));
        title.into_iter().chain(rest).collect()
    }

    fn word(&mut self, word: &Word) -> String {
        word.0
            .iter()
            .map(|piece| match piece {
                WordPart::Keep(text) => text.clone(),
                WordPart::Host(text) => self.host(text),
                WordPart::Path(text) => self.path(text),
                WordPart::Name(text) => self.kubernetes_name(PseudonymKind::Name, text),
            })
            .collect()
    }

    /// A name in a cluster; the ones that every cluster has stay.
    pub(super) fn kubernetes_name(&mut self, kind: PseudonymKind, name: &str) -> String {
        const EVERYWHERE: [&str; 9] = [
            "default",
            "kube-system",
            "kube-public",
            "kube-node-lease",
            "http",
            "https",
            "metrics",
            "POD",
            "podsandbox",
        ];
        if EVERYWHERE.contains(&name) { name.to_owned() } else { self.name(kind, name) }
    }
}

/// A program's own name, without what a process may have added to it.
pub(super) fn program(name: &str) -> String {
    let deleted = name.strip_suffix(" (deleted)");
    let first = first_word(deleted.unwrap_or(name));
    let usual = |c: char| c.is_ascii_alphanumeric() || "._+-:()[]/".contains(c);
    let kept = if first.chars().all(usual) && ids_in(first).is_empty() { first } else { REDACTED };
    format!("{kept}{}", if deleted.is_some() { " (deleted)" } else { "" })
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// What separates the words of a message.
fn is_delimiter(c: char) -> bool {
    c.is_whitespace() || ",;(){}<>='`!?|…".contains(c)
}

/// Whether a word of a message is a plain word, a number with or without its
/// unit, an option of this tool or the name of a capability.
fn is_plain(word: &str) -> bool {
    const TECHNICAL: [&str; 10] =
        ["ipv4", "ipv6", "IPv4", "IPv6", "tcp6", "udp6", "L2TP", "WSL2", "cgroup2", "v6only"];
    const UNITS: [&str; 8] = ["", "ms", "s", "B", "kB", "MB", "KiB", "MiB"];
    if is_id(word) || holds_address(word) {
        return false;
    }
    let letters = |c: char| c.is_ascii_alphabetic() || matches!(c, '-' | '_' | '.');
    let digits = |c: char| c.is_ascii_digit() || matches!(c, '.' | ':' | '%');
    word.chars().all(letters)
        || UNITS.contains(&word.trim_start_matches(digits))
        || TECHNICAL.contains(&word)
        || !word.chars().any(char::is_alphanumeric)
}

/// Whether there are as many numbers in it as an IPv4 address has, in whatever
/// way they are put together.
fn holds_address(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_digit()).filter(|run| !run.is_empty()).count() >= 4
}
