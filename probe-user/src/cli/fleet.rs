//! What `cluster` takes, also as a plugin of kubectl.

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::{Cli, Command, Global, SubjectArgs};
use crate::fleet::{IMAGE, NAMESPACE};

/// The help behind the options of `cluster`.
pub(super) const HELP: &str = "\
Every node is asked by its agent, a pod that waits, through the API's exec: nothing listens
on any port for this. What is the same on many nodes is said once; a node that differs, that
lacks it, or that did not answer is named.

Examples:
  whereis-port cluster manifest | kubectl apply -f -     put an agent on every node
  whereis-port cluster 30518                             who is behind 30518, on all nodes
  whereis-port cluster --context prod 30518 53/udp --timeout 30s
  whereis-port cluster --json 30518 | jq 'select(.type == \"cluster\")'
  kubectl whereis_port 30518                             the same, linked as kubectl-whereis_port

Rights:
  list on pods and create on pods/exec in the namespace of the agents (older API servers ask for
  get on pods/exec), and list on nodes, to name those without an agent. Whoever may exec into the
  agents can read there what root can.

Exit status:
  0  found on at least one node
  1  surely nothing there, on every node of the cluster
  2  bad usage
  3  not found, but a node could not be asked, or could not tell
  4  the tool itself failed, or the API could not be asked";

/// Whom to ask, and how.
#[derive(Debug, Clone, Args)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub struct FleetArgs {
    /// What is asked for.
    #[arg(
        value_name = "TARGET",
        required = true,
        allow_negative_numbers = true,
        help = "PORT, PORT/PROTO, ADDR:PORT[/PROTO], [V6]:PORT, FIRST-LAST, or a service name"
    )]
    pub targets: Vec<String>,
    /// The namespace of the agents
    #[arg(short, long, value_name = "NAMESPACE", default_value = NAMESPACE)]
    pub namespace: String,
    /// What else there is.
    #[command(subcommand)]
    pub command: Option<FleetCommand>,
}

/// What `cluster` can do but ask.
#[derive(Debug, Clone, Subcommand)]
pub enum FleetCommand {
    /// Print the manifest of the agents, for kubectl apply -f - or Kustomize
    Manifest {
        /// The image that has whereis-port on its PATH
        #[arg(long, value_name = "IMAGE", default_value = IMAGE)]
        image: String,
        /// The namespace to make, and to put them in
        #[arg(short, long, value_name = "NAMESPACE", default_value = NAMESPACE)]
        namespace: String,
    },
}

/// The name of the program by which kubectl finds its plugin `kubectl whereis_port`.
const PLUGIN: &str = "kubectl-whereis_port";

/// The name of the program that kubectl asks what may come next.
const COMPLETER: &str = "kubectl_complete-whereis_port";

/// The same as `whereis-port cluster`, as kubectl runs it.
#[derive(Debug, Parser)]
#[command(
    name = PLUGIN,
    bin_name = "kubectl whereis_port",
    version,
    about = "Who is behind a port, on every node of the cluster",
    max_term_width = 100
)]
struct Plugin {
    #[command(flatten)]
    fleet: FleetArgs,
    #[command(flatten)]
    global: Global,
}

/// How the program was called, by the name it was called by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalledAs {
    /// Its own name, or any other.
    Itself,
    /// kubectl's plugin.
    Plugin,
    /// The completion of kubectl's plugin.
    Completer,
}

/// How a program of this name is called.
pub fn called_as(program: Option<&std::ffi::OsStr>) -> CalledAs {
    match program.and_then(|path| std::path::Path::new(path).file_name()).and_then(|n| n.to_str()) {
        Some(PLUGIN) => CalledAs::Plugin,
        Some(COMPLETER) => CalledAs::Completer,
        _ => CalledAs::Itself,
    }
}

/// The plugin's own command, whose help has kubectl's words.
fn plugin() -> clap::Command {
    Plugin::command().after_help(HELP.replace("whereis-port cluster", "kubectl whereis_port"))
}

/// Understands the arguments of kubectl's plugin.
///
/// # Errors
/// As clap says it; help and version too.
pub fn parse_plugin(args: impl Iterator<Item = std::ffi::OsString>) -> Result<Cli, clap::Error> {
    let matches = plugin().try_get_matches_from(args)?;
    let Plugin { fleet, global } = Plugin::from_arg_matches(&matches)?;
    Ok(Cli {
        from: None,
        netns: None,
        all: false,
        attempt: false,
        targets: Vec::new(),
        global,
        subject: SubjectArgs::default(),
        watch: None,
        flows: false,
        top: None,
        tls: false,
        quiet: false,
        output: None,
        command: Some(Command::Cluster(fleet)),
    })
}

/// What may come next behind `kubectl whereis_port`, in the form that kubectl reads:
/// a word on each line, and at the end that no files are offered.
pub fn complete(args: &[String]) -> String {
    let word = args.last().map_or("", String::as_str);
    let command = plugin();
    let inside = args.iter().rev().skip(1).find_map(|arg| command.find_subcommand(arg));
    let mut offered: Vec<(String, String)> = Vec::new();
    let commands = if inside.is_some() { None } else { Some(command.get_subcommands()) };
    for sub in commands.into_iter().flatten() {
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        offered.push((sub.get_name().to_owned(), about));
    }
    if word.starts_with('-') {
        for option in inside.unwrap_or(&command).get_opts().filter(|option| !option.is_hide_set()) {
            let help = option.get_help().map(ToString::to_string).unwrap_or_default();
            offered.extend(option.get_long().map(|long| (format!("--{long}"), help)));
        }
    }
    offered.sort();
    let mut text = String::new();
    for (name, help) in offered.iter().filter(|(name, _)| name.starts_with(word)) {
        text.push_str(&format!("{name}\t{}\n", help.lines().next().unwrap_or_default()));
    }
    // Cobra's directive "no file names".
    text.push_str(":4\n");
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn parse(args: &[&str]) -> Result<(FleetArgs, Global), String> {
        let args = std::iter::once(PLUGIN).chain(args.iter().copied()).map(Into::into);
        match parse_plugin(args) {
            Ok(Cli { command: Some(Command::Cluster(args)), global, .. }) => Ok((args, global)),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_name_of_the_program_decides() {
        let called = |name: &str| called_as(Some(name.as_ref()));
        assert_eq!(called("/usr/local/bin/kubectl-whereis_port"), CalledAs::Plugin);
        assert_eq!(called("kubectl_complete-whereis_port"), CalledAs::Completer);
        assert_eq!(called("whereis-port"), CalledAs::Itself);
        assert_eq!(called_as(None), CalledAs::Itself);
    }

    #[test]
    fn the_plugin_takes_what_cluster_takes() {
        let (args, global) =
            parse(&["30518", "53/udp", "--timeout", "3s", "--context", "prod"]).unwrap();
        assert_eq!(args.targets, ["30518", "53/udp"]);
        assert_eq!(
            (global.timeout, global.context.as_deref()),
            (Some(Duration::from_secs(3)), Some("prod"))
        );
        assert!(matches!(
            parse(&["manifest"]).unwrap().0.command,
            Some(FleetCommand::Manifest { .. })
        ));
        assert!(parse(&[]).unwrap_err().contains("kubectl whereis_port"), "the usage has its name");
        let help = parse(&["--help"]).unwrap_err();
        assert!(
            help.contains("kubectl whereis_port 30518") && !help.contains("whereis-port cluster"),
            "{help}"
        );
        plugin().debug_assert();
    }

    #[test]
    fn kubectl_is_told_what_may_come_next() {
        let complete =
            |args: &[&str]| complete(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
        assert!(complete(&[""]).starts_with("manifest\t"));
        assert!(complete(&["--na"]).starts_with("--namespace\t"), "{}", complete(&["--na"]));
        assert!(complete(&["manifest", "--im"]).starts_with("--image\t"));
        assert_eq!(complete(&["305"]), ":4\n");
    }
}
