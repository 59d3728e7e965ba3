//! What of a node may come next in a command line that is being typed.

use clap::{Arg, ArgAction, Command, CommandFactory};

use super::Cli;

/// The first argument by which a shell asks.
pub const ASKED: &str = "__complete";

/// What is being typed, and is to be completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletionRequest {
    /// What it is the name of.
    pub of: CompletionKind,
    /// What stands before it in its word: `--netns=`, `pod:`, `port,`.
    pub before: String,
    /// As much of it as there is.
    pub begun: String,
    /// Whether other things may stand there as well.
    pub among_others: bool,
}

/// Of what kind the names are that complete it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompletionKind {
    /// Ports that something has.
    Port,
    /// `tcp` and `udp`, behind a port.
    Proto,
    /// Pods, with their namespaces.
    Pod,
    /// Containers.
    Container,
    /// Network namespaces.
    Netns,
    /// Contexts of kubeconfig files.
    Context,
    /// Processes, by their ids.
    Pid,
    /// What begins the name of a sender.
    Sender,
    /// Columns of a list: known without a node.
    Column,
}

/// What is wanted behind these words, the last of which is being typed. `None` where no name of a
/// node belongs.
pub fn wanted(words: &[String]) -> Option<CompletionRequest> {
    let (last, before) = words.split_last()?;
    let root = Cli::command();
    let mut command = &root;
    let mut value_of: Option<&Arg> = None;
    let mut targets = 0;
    let mut only_targets = false;
    for word in before {
        if value_of.take().is_some() {
            continue;
        }
        if word == "--" {
            only_targets = true;
        } else if let Some(option) = option(command, &root, word).filter(|_| !only_targets) {
            value_of = Some(option).filter(|_| !word.contains('='));
        } else if word.starts_with('-') && !only_targets {
            // A switch.
        } else if let Some(sub) = command.find_subcommand(word).filter(|_| targets == 0) {
            command = sub;
        } else {
            targets += 1;
        }
    }
    if let Some(arg) = value_of {
        return value(arg, String::new(), last);
    }
    if last.starts_with('-') && !only_targets {
        let (name, text) = last.split_once('=')?;
        return value(option(command, &root, name)?, format!("{name}="), text);
    }
    let takes = command.get_positionals().next()?;
    if !takes.get_id().as_str().starts_with("targets") {
        return None;
    }
    let among_others = std::ptr::eq(command, &raw const root) && targets == 0;
    let port = |begun: &str| CompletionRequest {
        of: CompletionKind::Port,
        before: String::new(),
        begun: begun.to_owned(),
        among_others,
    };
    match last.rsplit_once('/') {
        Some((port, proto)) if port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty() => {
            Some(CompletionRequest {
                of: CompletionKind::Proto,
                before: format!("{port}/"),
                begun: proto.to_owned(),
                among_others: false,
            })
        }
        None if last.bytes().all(|b| b.is_ascii_digit()) => Some(port(last)),
        _ => None,
    }
}

/// The option of a command that a word is, if it takes a value.
fn option<'c>(command: &'c Command, root: &'c Command, word: &str) -> Option<&'c Arg> {
    let name = word.split_once('=').map_or(word, |(name, _)| name);
    let is = |arg: &&Arg| {
        let long = arg.get_long().is_some_and(|long| name.strip_prefix("--") == Some(long));
        let short = arg.get_short().is_some_and(|short| {
            name.strip_prefix('-').is_some_and(|rest| rest.chars().eq([short]))
        });
        (long || short) && matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
    };
    let global = root.get_opts().filter(|arg| arg.is_global_set());
    command.get_opts().chain(global).find(is)
}

/// What the value of an option is the name of.
fn value(arg: &Arg, before: String, text: &str) -> Option<CompletionRequest> {
    let wanted = |of, before: String, begun: &str| {
        Some(CompletionRequest { of, before, begun: begun.to_owned(), among_others: false })
    };
    match arg.get_long()? {
        "pod" => wanted(CompletionKind::Pod, before, text),
        "container" => wanted(CompletionKind::Container, before, text),
        "netns" => wanted(CompletionKind::Netns, before, text),
        "context" => wanted(CompletionKind::Context, before, text),
        "pid" => wanted(CompletionKind::Pid, before, text),
        "from" => match text.split_once(':') {
            Some((kind, name)) => {
                let of = match kind {
                    "pod" => CompletionKind::Pod,
                    "container" => CompletionKind::Container,
                    "netns" => CompletionKind::Netns,
                    "pid" => CompletionKind::Pid,
                    _ => return None,
                };
                wanted(of, format!("{before}{kind}:"), name)
            }
            None => wanted(CompletionKind::Sender, before, text),
        },
        "columns" | "sort" => {
            let at = text.rfind([',', '+']).map_or(0, |at| at + 1);
            let (said, begun) = text.split_at(at);
            wanted(CompletionKind::Column, format!("{before}{said}"), begun)
        }
        "where" if !text.contains(['=', '~', '!']) => wanted(CompletionKind::Column, before, text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<(CompletionKind, String, String, bool)> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        wanted(&words).map(|w| (w.of, w.before, w.begun, w.among_others))
    }

    #[test]
    fn what_may_come_next_is_known_by_what_stands_before() {
        let some = |of, before: &str, begun: &str, among| {
            Some((of, before.to_owned(), begun.to_owned(), among))
        };
        assert_eq!(of(""), some(CompletionKind::Port, "", "", true));
        assert_eq!(of("80"), some(CompletionKind::Port, "", "80", true));
        assert_eq!(of("443 80"), some(CompletionKind::Port, "", "80", false));
        assert_eq!(of("53/"), some(CompletionKind::Proto, "53/", "", false));
        assert_eq!(of("-q 53/u"), some(CompletionKind::Proto, "53/", "u", false));
        assert_eq!(of("trace 80"), some(CompletionKind::Port, "", "80", false));
        assert_eq!(of("--pod sh"), some(CompletionKind::Pod, "", "sh", false));
        assert_eq!(of("list --netns=ho"), some(CompletionKind::Netns, "--netns=", "ho", false));
        assert_eq!(of("list --context "), some(CompletionKind::Context, "", "", false));
        assert_eq!(
            of("8080 --from pod:shop/c"),
            some(CompletionKind::Pod, "pod:", "shop/c", false)
        );
        assert_eq!(of("8080 --from po"), some(CompletionKind::Sender, "", "po", false));
        assert_eq!(of("list -O port,ser"), some(CompletionKind::Column, "port,", "ser", false));
        assert_eq!(of("list -O +rea"), some(CompletionKind::Column, "+", "rea", false));
        assert_eq!(of("list -w ki"), some(CompletionKind::Column, "", "ki", false));
        for nothing in
            ["list ", "--js", "list -o ", "https", "127.0.0.1:8", "completions ", "explain x"]
        {
            assert_eq!(of(nothing), None, "{nothing}");
        }
    }
}
