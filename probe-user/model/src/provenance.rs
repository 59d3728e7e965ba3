//! Where a process comes from, beyond its name: who can be turned to about it.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Pid, Port, Proto, Socket};

/// What the files around a process say of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Whose its executable is; `None` where no package manager has a say in it.
    pub package: Option<Package>,
    /// The git repository that its working directory is in.
    pub repository: Option<Repository>,
}

/// A package of the system, or of the container, that a process runs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Whose package.
    pub manager: PackageManager,
    /// Its name. Untrusted. `None` where it could not be told.
    pub name: Option<String>,
    /// Why it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The package managers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackageManager {
    /// Debian's and Ubuntu's.
    Dpkg,
    /// Alpine's.
    Apk,
    /// That of Fedora, Red Hat and SUSE. Its database is not read.
    Rpm,
}

impl PackageManager {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dpkg => "dpkg",
            Self::Apk => "apk",
            Self::Rpm => "rpm",
        }
    }
}

/// A git repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    /// Its directory, as the process sees it. Untrusted.
    pub directory: String,
    /// The branch that is checked out. Untrusted.
    pub branch: Option<String>,
    /// The commit that is checked out, where it is no branch.
    pub commit: Option<String>,
}

/// What starts a process by hand or by time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// What it is.
    pub kind: SessionKind,
    /// The program that began it.
    pub pid: Pid,
    /// Its name.
    pub program: String,
}

/// The kinds of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionKind {
    /// Somebody who is logged in by SSH.
    Ssh,
    /// A job that runs at a time.
    Cron,
}

/// A socket unit of systemd, as its file says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketUnit {
    /// Its name: `ssh.socket`.
    pub name: String,
    /// Its file.
    pub file: String,
    /// The service that it starts; of `Accept=yes` one for each connection.
    pub service: String,
    /// Where it listens.
    pub listens: Vec<Listens>,
}

/// Where a socket unit listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Listens {
    /// At a port; without an address at all of them.
    Port(Proto, Option<IpAddr>, Port),
    /// At a path, or with `@` at an abstract name. Untrusted.
    Path(String),
}

impl SocketUnit {
    /// Whether this is one of its sockets, by what it is bound to.
    pub fn has(&self, socket: &Socket) -> bool {
        self.listens.iter().any(|listens| match listens {
            Listens::Port(proto, address, port) => {
                (*proto, *port) == (socket.proto, socket.port)
                    && match address {
                        Some(address) => *address == socket.address,
                        // [::], or 0.0.0.0 on a system without IPv6.
                        None => socket.is_wildcard(),
                    }
            }
            Listens::Path(_) => false,
        })
    }

    /// Understands a unit's file with those that change it, in their order. `None` for a unit
    /// that is a template: it listens nowhere.
    pub fn parse(name: &str, file: &str, texts: &[String]) -> Option<Self> {
        let stem = name.strip_suffix(".socket").filter(|stem| !stem.ends_with('@'))?;
        let mut listens: Vec<Listens> = Vec::new();
        let mut service = None;
        let mut accept = false;
        for (key, value) in texts.iter().flat_map(|text| settings(text)) {
            let add = |listens: &mut Vec<Listens>, proto| match value.as_str() {
                // An empty value takes back what was said before.
                "" => listens.clear(),
                value => listens.extend(place(value, proto)),
            };
            match key.as_str() {
                "ListenStream" | "ListenSequentialPacket" => add(&mut listens, Proto::Tcp),
                "ListenDatagram" => add(&mut listens, Proto::Udp),
                "Service" => service = Some(value).filter(|value| !value.is_empty()),
                "Accept" => accept = matches!(value.as_str(), "yes" | "true" | "on" | "1"),
                _ => {}
            }
        }
        let usual = if accept { format!("{stem}@.service") } else { format!("{stem}.service") };
        let service = service.unwrap_or(usual);
        Some(Self { name: name.to_owned(), file: file.to_owned(), service, listens })
    }
}

/// The settings of the section `[Socket]`, in order.
fn settings(text: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut in_section = false;
    let text = text.replace("\\\n", " ");
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with('[') {
            in_section = line == "[Socket]";
        } else if let Some((key, value)) = line.split_once('=').filter(|_| in_section) {
            all.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    all
}

/// What stands behind `ListenStream=` (systemd.socket(5)). What has a specifier in it is left
/// out: what it stands for is not known here.
fn place(value: &str, proto: Proto) -> Option<Listens> {
    if value.contains('%') {
        return None;
    }
    if value.starts_with(['/', '@']) {
        return Some(Listens::Path(value.to_owned()));
    }
    if let Ok(port) = value.parse() {
        return Some(Listens::Port(proto, None, Port(port)));
    }
    let at: SocketAddr = value.parse().ok()?;
    Some(Listens::Port(proto, Some(at.ip()), Port(at.port())))
}

/// The repository of a directory, by the files that git keeps: the content of `HEAD`.
pub fn checked_out(directory: &str, head: &str) -> Option<Repository> {
    let head = head.trim_end_matches(['\n', '\r']);
    if head.contains('\n') {
        return None;
    }
    let (branch, commit) = match head.strip_prefix("ref: ") {
        Some(name) => (Some(name.strip_prefix("refs/heads/").unwrap_or(name).to_owned()), None),
        None => {
            let is_id =
                matches!(head.len(), 40 | 64) && head.bytes().all(|b| b.is_ascii_hexdigit());
            (None, Some(head.get(..12).filter(|_| is_id)?.to_owned()))
        }
    };
    Some(Repository { directory: directory.to_owned(), branch, commit })
}

/// The package that has a file, by apk's database of installed packages (apk(5)): `P:` begins a
/// package's name, `F:` a directory without its first slash, `R:` a file in it.
pub fn apk_owner(database: &str, file: &str) -> Option<String> {
    let (directory, name) = file.strip_prefix('/')?.rsplit_once('/').or(Some(("", file)))?;
    let (mut package, mut in_directory) = (None, false);
    for line in database.lines() {
        match line.split_once(':') {
            Some(("P", name)) => (package, in_directory) = (Some(name), false),
            Some(("F", path)) => in_directory = path == directory,
            Some(("R", found)) if in_directory && found == name => {
                return package.map(str::to_owned);
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NetnsId, SocketState};

    fn unit(name: &str, texts: &[&str]) -> Option<SocketUnit> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        SocketUnit::parse(name, "/x", &texts)
    }

    #[test]
    fn a_socket_unit_says_where_it_listens_and_what_it_starts() {
        // As Debian's openssh-server 9.2 has it.
        let text = "[Unit]\nDescription=OpenBSD Secure Shell server socket\nBefore=ssh.service\n\n\
                    [Socket]\nListenStream=22\nAccept=no\nFreeBind=yes\n\n[Install]\nWantedBy=sockets.target\n";
        let ssh = unit("ssh.socket", &[text]).unwrap();
        assert_eq!(ssh.service, "ssh.service");
        assert_eq!(ssh.listens, [Listens::Port(Proto::Tcp, None, Port(22))]);
        let more = "[Socket]\n# other\nListenStream=\nListenStream = 127.0.0.1:2222\nListenDatagram=[::1]:53\n\
                    ListenStream=/run/x.sock\nListenStream=%t/y\nListenStream=vsock::22\nAccept=yes\n[X]\nListenStream=1\n";
        let changed = unit("ssh.socket", &[text, more]).unwrap();
        let expected = [
            Listens::Port(Proto::Tcp, Some("127.0.0.1".parse().unwrap()), Port(2222)),
            Listens::Port(Proto::Udp, Some("::1".parse().unwrap()), Port(53)),
            Listens::Path("/run/x.sock".into()),
        ];
        assert_eq!(changed.listens, expected);
        assert_eq!(changed.service, "ssh@.service");
        assert_eq!(
            unit("a.socket", &["[Socket]\nService=b.service\n"]).unwrap().service,
            "b.service"
        );
        assert_eq!(unit("ssh@.socket", &[text]), None);
        assert_eq!(unit("ssh.service", &[text]), None);
    }

    #[test]
    fn a_unit_has_the_sockets_that_are_bound_so() {
        let unit = unit("x.socket", &["[Socket]\nListenStream=80\nListenStream=127.0.0.1:81\n"]);
        let unit = unit.unwrap();
        let socket = |address: &str, port, proto| Socket {
            netns: NetnsId::Inode(1),
            proto,
            state: SocketState::Listen,
            address: address.parse().unwrap(),
            port: Port(port),
            v6only: None,
            inode: 1,
            uid: 0,
            ifindex: None,
            cgroup_id: None,
            queue: None,
        };
        for (address, port, proto, has) in [
            ("::", 80, Proto::Tcp, true),
            ("0.0.0.0", 80, Proto::Tcp, true),
            ("127.0.0.1", 80, Proto::Tcp, false),
            ("127.0.0.1", 81, Proto::Tcp, true),
            ("127.0.0.1", 81, Proto::Udp, false),
            ("::", 81, Proto::Tcp, false),
        ] {
            assert_eq!(unit.has(&socket(address, port, proto)), has, "{address}:{port}/{proto}");
        }
    }

    #[test]
    fn what_is_checked_out_is_a_branch_or_a_commit() {
        let of = |head: &str| {
            let found = checked_out("/x", head)?;
            Some((found.branch, found.commit))
        };
        let branch = |name: &str| Some((Some(name.to_owned()), None));
        assert_eq!(of("ref: refs/heads/main\n"), branch("main"));
        assert_eq!(of("ref: refs/heads/a/b"), branch("a/b"));
        assert_eq!(of("ref: refs/remotes/x"), branch("refs/remotes/x"));
        let id = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(of(id), Some((None, Some("0123456789ab".to_owned()))));
        for other in ["", "\n", "0123", "ref: a\nb", "gitdir: x"] {
            assert_eq!(of(other), None, "{other:?}");
        }
    }

    #[test]
    fn apk_says_whose_a_file_is() {
        // Of Alpine 3.18's /lib/apk/db/installed, cut.
        let text = "C:Q1x\nP:busybox\nV:1.36.1-r5\nF:bin\nR:busybox\na:0:0:755\nF:etc\nR:securetty\n\n\
                    P:nginx\nV:1.24.0-r7\nF:usr\nF:usr/sbin\nR:nginx\nZ:Q1y\n";
        let of = |file| apk_owner(text, file);
        assert_eq!(of("/bin/busybox").as_deref(), Some("busybox"));
        assert_eq!(of("/usr/sbin/nginx").as_deref(), Some("nginx"));
        assert_eq!(of("/usr/nginx"), None);
        assert_eq!(of("/etc/busybox"), None);
    }
}
