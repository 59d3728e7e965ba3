//! The OpenSSH client: `-L`, `-D` and their `-o` forms.

use crate::Port;

use super::text::{self, BindAddress, unbracket};
use super::{ForwardTarget, ForwarderLine, Mapping, Word};

/// The option letters that take a value (`ssh.c`, OpenSSH 9.9).
const VALUED: &str = "BbcDEeFIiJLlmOoPpQRSWw";

/// What a control master's title is cut down to.
pub(super) const CONTROL_MASTER: &str = "ssh: [mux]";

/// A control master replaces its arguments by `ssh: PATH [mux]`.
pub(super) fn control_master(title: &str) -> Option<ForwarderLine> {
    (title.starts_with("ssh: ") && title.ends_with("[mux]")).then(|| {
        let instead = "an ssh control master takes its forwards from the clients that use it";
        ForwarderLine::unsaid("ssh", instead, &[title.to_owned()])
    })
}

/// `ssh [OPTIONS] DESTINATION [OPTIONS] [COMMAND]`.
pub(super) fn ssh(args: &[String]) -> Option<ForwarderLine> {
    let said = SshArgs::from(args)?;
    let via = said.destination?;
    let mut line = ForwarderLine { kind: "ssh -L", mappings: Vec::new(), words: Vec::new() };
    for local in &said.local {
        // One that is not understood can't be matched; that it is there counts.
        let Some(spec) = LocalForward::from(local) else {
            line.words.extend([Word::keep("-L"), Word::keep("?")]);
            continue;
        };
        line.words.extend([Word::keep("-L"), spec.word()]);
        let target = match spec.to {
            LocalForwardTo::Host(host, port) => {
                ForwardTarget::Remote { via: via.to_owned(), host: host.to_owned(), port }
            }
            LocalForwardTo::Unix(_) => ForwardTarget::Unsaid("a unix socket on the ssh server"),
        };
        let quote = text::quote(["-L", local, via]);
        line.mappings.push(Mapping::tcp(spec.bind(), Some(spec.port), target, quote));
    }
    for dynamic in &said.dynamic {
        let Some((bind, port)) = bind_port(dynamic) else {
            line.words.extend([Word::keep("-D"), Word::keep("?")]);
            continue;
        };
        line.words.extend([Word::keep("-D"), bind_word(bind).then(port)]);
        let target = ForwardTarget::Unsaid("a SOCKS proxy: each connection says where it goes");
        let quote = text::quote(["-D", dynamic, via]);
        line.mappings.push(Mapping::tcp(bind_of(bind), Some(port), target, quote));
    }
    if said.local.is_empty() && said.dynamic.is_empty() {
        let instead = "a forward from ssh's configuration files or its escape commands";
        line = ForwarderLine::unsaid("ssh", instead, &[via.to_owned()]);
    } else if line.mappings.iter().all(|m| matches!(m.target, ForwardTarget::Unsaid(_))) {
        line.kind = "ssh -D";
    }
    line.words.push(destination_word(via));
    Some(line)
}

/// The arguments of ssh that forward ports.
#[derive(Default)]
struct SshArgs<'a> {
    local: Vec<String>,
    dynamic: Vec<String>,
    destination: Option<&'a str>,
}

impl<'a> SshArgs<'a> {
    /// `None` when an option lacks its value.
    fn from(args: &'a [String]) -> Option<Self> {
        let mut said = Self::default();
        let mut args = args.iter().map(String::as_str);
        while let Some(arg) = args.next() {
            if arg == "--" {
                said.destination = said.destination.or_else(|| args.next());
                break;
            }
            let Some(letters) = arg.strip_prefix('-').filter(|l| !l.is_empty()) else {
                if said.destination.is_some() {
                    // The remote command: whatever follows is not ssh's.
                    break;
                }
                said.destination = Some(arg).filter(|a| !a.is_empty());
                continue;
            };
            let Some((at, letter)) = letters.char_indices().find(|(_, c)| VALUED.contains(*c))
            else {
                continue;
            };
            let value = match &letters[at + letter.len_utf8()..] {
                "" => args.next()?,
                glued => glued,
            };
            match letter {
                'L' => said.local.push(value.to_owned()),
                'D' => said.dynamic.push(value.to_owned()),
                'o' => said.option(value),
                _ => {}
            }
        }
        Some(said)
    }

    /// `LocalForward=8080 host:80`, with `=` or blanks, and the two parts too.
    fn option(&mut self, option: &str) {
        let mut parts =
            option.split(|c: char| c == '=' || c.is_whitespace()).filter(|p| !p.is_empty());
        let (Some(key), Some(from)) = (parts.next(), parts.next()) else { return };
        match key.to_ascii_lowercase().as_str() {
            "localforward" => {
                let to = parts.next().map(|to| format!(":{to}")).unwrap_or_default();
                self.local.push(format!("{from}{to}"));
            }
            "dynamicforward" => self.dynamic.push(from.to_owned()),
            _ => {}
        }
    }
}

/// The value of `-L`: `[BIND:]PORT:HOST:HOSTPORT` or `[BIND:]PORT:SOCKET`.
struct LocalForward<'a> {
    bind: Option<&'a str>,
    port: Port,
    to: LocalForwardTo<'a>,
}

/// Where a local forward leads.
enum LocalForwardTo<'a> {
    Host(&'a str, Port),
    Unix(&'a str),
}

impl<'a> LocalForward<'a> {
    fn from(spec: &'a str) -> Option<Self> {
        let fields = fields(spec);
        let (from, to) = match fields.as_slice() {
            [from @ .., path] if path.starts_with('/') => (from, LocalForwardTo::Unix(path)),
            [from @ .., host, port] if !host.is_empty() => {
                (from, LocalForwardTo::Host(unbracket(host), text::port_or_service(port)?))
            }
            _ => return None,
        };
        let (bind, port) = match from {
            [port] => (None, port),
            [bind, port] => (Some(*bind), port),
            _ => return None,
        };
        Some(Self { bind, port: text::port_or_service(port)?, to })
    }

    fn bind(&self) -> BindAddress {
        bind_of(self.bind)
    }

    /// The same, written anew.
    fn word(&self) -> Word {
        let word = bind_word(self.bind).then(format_args!("{}:", self.port));
        match self.to {
            LocalForwardTo::Host(host, port) => {
                word.then_bracketed(host).then(format_args!(":{port}"))
            }
            LocalForwardTo::Unix(path) => word.then_path(path),
        }
    }
}

/// `[BIND:]PORT`.
fn bind_port(spec: &str) -> Option<(Option<&str>, Port)> {
    match fields(spec).as_slice() {
        [port] => Some((None, text::port_or_service(port)?)),
        [bind, port] => Some((Some(bind), text::port_or_service(port)?)),
        _ => None,
    }
}

/// Fields between colons (or, as ssh allows too, a path to the end), brackets
/// kept together.
fn fields(spec: &str) -> Vec<&str> {
    let mut fields = Vec::new();
    let mut rest = spec;
    loop {
        let close = if rest.starts_with('[') { rest.find(']').unwrap_or(0) } else { 0 };
        let colon =
            if rest.starts_with('/') { None } else { rest[close..].find(':').map(|at| close + at) };
        match colon {
            Some(at) => {
                fields.push(&rest[..at]);
                rest = &rest[at + 1..];
            }
            None => {
                fields.push(rest);
                return fields;
            }
        }
    }
}

/// Nothing said is the loopback, unless the configuration has `GatewayPorts`;
/// empty or `*` is every address.
fn bind_of(bind: Option<&str>) -> BindAddress {
    match bind {
        None | Some("" | "*") => BindAddress::Any,
        Some(bind) => BindAddress::from(bind),
    }
}

fn bind_word(bind: Option<&str>) -> Word {
    match bind {
        None => Word::default(),
        Some(bind @ ("" | "*")) => Word::keep(bind).then(":"),
        Some(bind) => Word::default().then_bracketed(unbracket(bind)).then(":"),
    }
}

/// `[ssh://][USER@]HOST[:PORT]`.
fn destination_word(via: &str) -> Word {
    let (mut word, rest) = match via.strip_prefix("ssh://") {
        Some(rest) => (Word::keep("ssh://"), rest),
        None => (Word::default(), via),
    };
    let host = match rest.rsplit_once('@') {
        Some((user, host)) => {
            word = word.then_name(user).then("@");
            host
        }
        None => rest,
    };
    match host.rsplit_once(':') {
        Some((host, port)) if via.starts_with("ssh://") => {
            word.then_bracketed(unbracket(host)).then(format_args!(":{port}"))
        }
        _ => word.then_host(host),
    }
}
