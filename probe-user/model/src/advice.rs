//! What would help, with commands that are lists of arguments until they are shown: names
//! in them come from outside, and a shell must not see more in them than names.

use serde::{Deserialize, Serialize};

use super::{ObjectName, Port};

/// The ports of a `port-forward` of which only the Service is known.
const PORTS: &str = "LOCALPORT:SERVICEPORT";

/// A program and its arguments. Untrusted where it quotes names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Command {
    words: Vec<String>,
    /// The Service whose ports the last argument still has to name.
    #[serde(skip)]
    open: Option<Box<ObjectName>>,
}

impl Command {
    /// A program and what is always said to it, separated by spaces.
    pub fn new(words: &str) -> Self {
        Self { words: words.split_ascii_whitespace().map(str::to_owned).collect(), open: None }
    }

    /// With one more argument that can't be taken for an option: an option's value, or what
    /// begins with something known.
    #[must_use]
    pub fn arg(mut self, word: impl Into<String>) -> Self {
        self.words.push(word.into());
        self
    }

    /// With several constant arguments, separated by spaces.
    #[must_use]
    pub fn args(mut self, words: &str) -> Self {
        self.words.extend(words.split_ascii_whitespace().map(str::to_owned));
        self
    }

    /// With a name as an argument of its own. One that looks like an option stands behind
    /// `--`, so that all options have to come before it.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        if name.starts_with('-') && !self.words.iter().any(|word| word == "--") {
            self.words.push("--".to_owned());
        }
        self.words.push(name);
        self
    }

    /// With the arguments of kubectl that forward a port of a Service which is not known yet:
    /// [`Command::fill_ports`] names it, else who runs the command has to.
    #[must_use]
    pub fn port_forward(mut self, service: ObjectName) -> Self {
        let ObjectName { namespace, name } = &service;
        let words = ["-n", namespace, "port-forward", &format!("svc/{name}"), PORTS];
        self.words.extend(words.map(str::to_owned));
        self.open = Some(Box::new(service));
        self
    }

    /// Names the ports, here and of the Service, if it forwards to a port of `service` which
    /// was not known until now.
    pub fn fill_ports(&mut self, service: &ObjectName, local: Port, port: Port) {
        if self.open.as_deref() == Some(service)
            && let Some(ports) = self.words.last_mut()
        {
            *ports = format!("{local}:{port}");
            self.open = None;
        }
    }

    /// With a port to be named by who runs it, of a Service that is not known either.
    #[must_use]
    pub fn any_ports(self) -> Self {
        self.arg(PORTS)
    }

    /// Program and arguments.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The same, to change what names something.
    pub fn words_mut(&mut self) -> &mut [String] {
        &mut self.words
    }
}

/// A part of an advice's text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdvicePart {
    /// Words that are not to be typed.
    Words(String),
    /// A name from outside among them.
    Name(String),
    /// A command.
    Command(Command),
    /// What stands between two ways that help, either of which is enough.
    Or,
}

impl AdvicePart {
    /// [`AdvicePart::Or`] in words.
    pub const OR: &str = "; or ";
}

/// What a proposal is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FixKind {
    /// Connect to another address, or from another place.
    ConnectElsewhere,
    /// A tunnel by SSH.
    SshTunnel,
    /// Kubernetes' own way to a pod or Service.
    PortForward,
    /// Make a container or cluster publish the port.
    Publish,
    /// Bind to another address.
    Bind,
    /// Start what should be there, or remove what leads to it.
    Start,
    /// Create a Service.
    CreateService,
    /// Change the policy of a Service.
    ChangePolicy,
    /// Change a setting of the kernel.
    SetSysctl,
    /// Set an interface up.
    SetLinkUp,
    /// Set a port of a bridge otherwise.
    SetBridgePort,
    /// Remove a rule of the kernel.
    RemoveRule,
    /// Make what has a port give it up, or wait until it does.
    FreePort,
    /// Ask somewhere else.
    AskElsewhere,
    /// Look at something that says more.
    Inspect,
    /// Anything else.
    #[default]
    Other,
}

/// What would help: words, with names and commands among them.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Advice {
    kind: FixKind,
    pieces: Vec<AdvicePart>,
}

impl Advice {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, being a proposal of this kind.
    #[must_use]
    pub fn of(mut self, kind: FixKind) -> Self {
        self.kind = kind;
        self
    }

    /// What kind of proposal: of several the first one's.
    pub fn kind(&self) -> FixKind {
        self.kind
    }

    /// With words behind it.
    #[must_use]
    pub fn words(mut self, words: impl Into<String>) -> Self {
        let words = words.into();
        match self.pieces.last_mut() {
            Some(AdvicePart::Words(before)) => before.push_str(&words),
            _ => self.pieces.push(AdvicePart::Words(words)),
        }
        self
    }

    /// With a name behind it.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.pieces.push(AdvicePart::Name(name.into()));
        self
    }

    /// With names behind it, each once: `a`, `a and b`, `a, b and c`; of many the first
    /// few and their number.
    #[must_use]
    pub fn names(mut self, names: &[String], word: &str) -> Self {
        /// How many are named.
        const NAMED: usize = 4;
        let mut each: Vec<&String> = Vec::new();
        for name in names {
            if each.len() <= NAMED && !each.contains(&name) {
                each.push(name);
            }
        }
        let more = each.len() > NAMED;
        each.truncate(NAMED);
        for (at, name) in each.iter().enumerate() {
            if at > 0 {
                let last = at + 1 == each.len() && !more;
                self = self.words(if last { format!(" {word} ") } else { ", ".to_owned() });
            }
            self = self.name(name.as_str());
        }
        if more { self.words(format!(" {word} more")) } else { self }
    }

    /// With a command behind it.
    #[must_use]
    pub fn command(mut self, command: Command) -> Self {
        self.pieces.push(AdvicePart::Command(command));
        self
    }

    /// With another one behind it, and `between` in between.
    #[must_use]
    pub fn and(mut self, between: &str, other: Self) -> Self {
        if self.pieces.is_empty() {
            self.kind = other.kind;
        } else if !other.pieces.is_empty() && !between.is_empty() {
            self = self.words(between);
        }
        for piece in other.pieces {
            self = match piece {
                AdvicePart::Words(words) => self.words(words),
                AdvicePart::Name(name) => self.name(name),
                AdvicePart::Command(command) => self.command(command),
                AdvicePart::Or => {
                    self.pieces.push(AdvicePart::Or);
                    self
                }
            };
        }
        self
    }

    /// With another way behind it that helps as well.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        if !self.pieces.is_empty() && !other.pieces.is_empty() {
            self.pieces.push(AdvicePart::Or);
        }
        self.and("", other)
    }

    /// Each of the ways that help, in order.
    pub fn ways(&self) -> Vec<Self> {
        let each = self.pieces.split(|piece| *piece == AdvicePart::Or);
        each.map(|pieces| Self { kind: self.kind, pieces: pieces.to_vec() }).collect()
    }

    /// Of these parts.
    pub fn from_pieces(pieces: Vec<AdvicePart>) -> Self {
        Self { kind: FixKind::Other, pieces }
    }

    /// Its parts, in order.
    pub fn pieces(&self) -> &[AdvicePart] {
        &self.pieces
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The commands in it.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.pieces.iter().filter_map(|piece| match piece {
            AdvicePart::Command(command) => Some(command),
            AdvicePart::Words(_) | AdvicePart::Name(_) | AdvicePart::Or => None,
        })
    }

    /// The same, to change them.
    pub fn commands_mut(&mut self) -> impl Iterator<Item = &mut Command> {
        self.pieces.iter_mut().filter_map(|piece| match piece {
            AdvicePart::Command(command) => Some(command),
            AdvicePart::Words(_) | AdvicePart::Name(_) | AdvicePart::Or => None,
        })
    }
}

impl From<String> for Advice {
    fn from(words: String) -> Self {
        Self::new().words(words)
    }
}

impl From<&str> for Advice {
    fn from(words: &str) -> Self {
        Self::new().words(words)
    }
}

impl From<Command> for Advice {
    fn from(command: Command) -> Self {
        Self::new().command(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_option() {
        let of = |name: &str| Command::new("docker exec").name(name).words().join(" ");
        assert_eq!(of("web"), "docker exec web");
        assert_eq!(of("-web"), "docker exec -- -web");
        let two = Command::new("x").name("-a").name("-b");
        assert_eq!(two.words(), ["x", "--", "-a", "-b"]);
    }

    #[test]
    fn ports_are_named_of_the_service_that_is_meant() {
        let of = |name: &str| ObjectName { namespace: "default".into(), name: name.into() };
        let mut command = Command::new("kubectl").port_forward(of("web"));
        let open = command.clone();
        command.fill_ports(&of("other"), Port(30_080), Port(80));
        assert_eq!(command, open);
        assert_eq!(command.words().last().unwrap(), PORTS);
        command.fill_ports(&of("web"), Port(30_080), Port(80));
        assert_eq!(command.words().join(" "), "kubectl -n default port-forward svc/web 30080:80");
        // The same words are no such command.
        let words = open
            .words()
            .iter()
            .skip(1)
            .fold(Command::new("kubectl"), |all, word| all.arg(word.as_str()));
        let mut alike = words.clone();
        alike.fill_ports(&of("web"), Port(30_080), Port(80));
        assert_eq!(alike, words);
    }

    #[test]
    fn of_several_proposals_the_first_says_the_kind() {
        let first = Advice::new().or(Advice::from("a").of(FixKind::Bind));
        let both = first.or(Advice::from("b").of(FixKind::Start));
        assert_eq!(both.kind(), FixKind::Bind);
        let words = |one: &Advice| one.pieces.clone();
        let each: Vec<_> = both.ways().iter().map(words).collect();
        assert_eq!(each, [[AdvicePart::Words("a".into())], [AdvicePart::Words("b".into())]]);
    }

    #[test]
    fn many_names_are_a_few_and_more() {
        let names: Vec<String> = (0..9).map(|i| format!("n{}", i / 2)).collect();
        let told = |names: &[String]| -> String {
            let pieces = Advice::new().names(names, "and").pieces;
            let text = |piece: &AdvicePart| match piece {
                AdvicePart::Words(text) | AdvicePart::Name(text) => text.clone(),
                AdvicePart::Command(_) | AdvicePart::Or => String::new(),
            };
            pieces.iter().map(text).collect()
        };
        assert_eq!(told(&names[..1]), "n0");
        assert_eq!(told(&names[..5]), "n0, n1 and n2");
        assert_eq!(told(&names), "n0, n1, n2, n3 and more");
    }
}
