//! Puts the parts together: arguments, a node, answers, a view, an exit status.

mod audit;
mod bind;
mod complete;
mod diff;
mod drops;
mod fleet;
mod free;
mod history;
mod learning;
mod logs;
mod metrics;
mod reading;
mod recorder;
mod trace;
#[allow(clippy::disallowed_methods, reason = "it opens its own files, and has threads of its own")]
mod tui;
mod wait;

use std::io::{self, IsTerminal, Write};
use std::mem::ManuallyDrop;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use crate::cli::{self, AnswerOutput, Cli, Command, Global, ListArgs, ListOutput};
use crate::exit::Exit;
use crate::model::{Answer, Impact, Listing, NetnsName, Proto, Query, Reach, Subject, Verdict};
use crate::node::{self, KubeOptions, LiveNode, Node, Recorded, Recorder};
use crate::resolve::{self, ListFilter};
use crate::view::text::Detail;
use crate::view::{self, Style};

/// How many names of namespaces a message has.
const NETNS_NAMED: usize = 20;

/// The widest terminal that text is made for: one may claim any width.
const WIDEST: u16 = 1000;

/// How many bytes of output are written at once: a long list is some megabytes.
const OUTPUT_BUFFER: usize = 64 << 10;

/// Why a run ends without its result.
#[derive(Debug)]
enum Failure {
    /// Bad usage or bad input.
    Usage(String),
    /// The tool itself failed.
    Tool(String),
    /// Whoever read the output went away. No failure at all.
    ClosedPipe,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ClosedPipe
        } else {
            Self::Tool(format!("writing the output: {error}"))
        }
    }
}

/// Runs the command and gives its exit status.
pub fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == cli::ASKED) {
        let words = std::env::args_os().skip(2).map(|word| word.to_string_lossy().into_owned());
        return complete::run(&words.collect::<Vec<String>>());
    }
    let parsed = match cli::called_as(std::env::args_os().next().as_deref()) {
        cli::CalledAs::Itself => Cli::try_parse(),
        cli::CalledAs::Plugin => cli::parse_plugin(std::env::args_os()),
        cli::CalledAs::Completer => return fleet::complete(),
    };
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            if let Some(message) = cli::misplaced(&error) {
                return complain(&message, Exit::Usage);
            }
            let usage = error.use_stderr();
            // Help and version are results; a closed pipe does not matter to either.
            logs::print(&error);
            return if usage { Exit::Usage } else { Exit::Found }.into();
        }
    };
    // A panic is a bug; it must not look like an answer.
    let result = std::panic::catch_unwind(|| run(&cli)).unwrap_or_else(|_| {
        Err(Failure::Tool(
            "this is a bug in whereis-port, please report it with the lines above".to_owned(),
        ))
    });
    match result {
        Ok(exit) => exit.into(),
        Err(Failure::ClosedPipe) => Exit::Found.into(),
        Err(Failure::Usage(message)) => complain(&message, Exit::Usage),
        Err(Failure::Tool(message)) => complain(&message, Exit::Failed),
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Tool(message)
    }
}

fn complain(message: &str, exit: Exit) -> ExitCode {
    let _ = writeln!(io::stderr(), "whereis-port: {}", view::clean(message));
    exit.into()
}

fn run(cli: &Cli) -> Result<Exit, Failure> {
    if cli.global.verbose > 1 {
        logs::show();
    }
    if cli.watch.is_some() && (cli.command.is_some() || cli.targets.is_empty()) {
        return Err(Failure::Usage(
            "--watch belongs to a question: whereis-port 8080 --watch 5s".to_owned(),
        ));
    }
    if cli.flows && (cli.command.is_some() || cli.targets.is_empty()) {
        return Err(Failure::Usage(
            "--flows belongs to a question: whereis-port 8080 --flows".to_owned(),
        ));
    }
    if cli.tls && (cli.command.is_some() || (cli.targets.is_empty() && !cli.subject.is_given())) {
        return Err(Failure::Usage(cli::TLS_BELONGS.to_owned()));
    }
    let of_question = [
        ("--all", cli.all),
        ("--top", cli.top.is_some()),
        ("--netns", cli.netns.is_some()),
        ("--from", cli.from.is_some()),
        ("--try", cli.attempt),
    ];
    let of_answer = [("--quiet", cli.quiet), ("--output", cli.output.is_some())];
    if let Some((option, _)) = of_answer.iter().find(|(_, given)| *given)
        && (cli.command.is_some() || (cli.targets.is_empty() && !cli.subject.is_given()))
    {
        return Err(Failure::Usage(format!(
            "{option} in front belongs to a question: whereis-port {option} … 8080"
        )));
    }
    if let Some((option, _)) = of_question.iter().find(|(_, given)| *given)
        && (cli.command.is_some() || cli.targets.is_empty())
    {
        return Err(Failure::Usage(format!(
            "{option} in front belongs to a question: whereis-port 8080 {option} …"
        )));
    }
    let subject = cli.subject.subject().map_err(Failure::Usage)?;
    if let Some(subject) = subject.as_ref().filter(|_| cli.command.is_some()) {
        return Err(Failure::Usage(format!(
            "--{0} is a question of its own: whereis-port --{0} …, without a command",
            subject.option()
        )));
    }
    let mut out = io::BufWriter::with_capacity(OUTPUT_BUFFER, io::stdout().lock());
    let exit = match &cli.command {
        Some(Command::Completions { shell }) => {
            out.write_all(view::install::completions(*shell, Cli::command()).as_bytes())?;
            Exit::Found
        }
        Some(Command::Man) => {
            out.write_all(&view::install::manual(&Cli::command())?)?;
            Exit::Found
        }
        Some(Command::Schema) => {
            out.write_all(view::json::schema().as_bytes())?;
            Exit::Found
        }
        Some(Command::Explain { code }) => explain(&cli.global, code.as_deref(), &mut out)?,
        Some(Command::Cluster(args)) => fleet::run(&cli.global, args, &mut out)?,
        Some(Command::Agent) => fleet::agent()?,
        Some(Command::Doctor) => {
            on_node(&cli.global, None, |node| doctor(node, &cli.global, &mut out))?
        }
        Some(Command::Pin { group }) => pin(group.as_deref(), &mut out)?,
        Some(Command::Unpin) => unpin(&mut out)?,
        Some(Command::List(args)) => {
            on_node(&cli.global, None, |node| list(node, &cli.global, args, &mut out))?
        }
        Some(Command::Audit(args)) => {
            let asked = audit::understand(&cli.global, args)?;
            on_node(&cli.global, None, |node| {
                audit::run(node, &cli.global, args, &asked, &mut out)
            })?
        }
        Some(Command::Diff(args)) => diff::run(&cli.global, args, &mut out)?,
        Some(Command::Bind(args)) => {
            let questions = bind::questions(&cli.global, args)?;
            on_node(&cli.global, None, |node| bind::run(node, &cli.global, &questions, &mut out))?
        }
        Some(Command::Wait(args)) => wait::run(&cli.global, args, &mut out)?,
        Some(Command::Free(args)) => {
            let range = free::range(&cli.global, args)?;
            on_node(&cli.global, None, |node| free::run(node, &cli.global, args, &range, &mut out))?
        }
        Some(Command::Trace(args)) => trace::run(&cli.global, args, &mut out)?,
        Some(Command::RecordEvents(args)) => recorder::run(&cli.global, args, &mut out)?,
        Some(Command::History(args)) => history::run(&cli.global, args, &mut out)?,
        None if subject.is_some() => {
            on_node(&cli.global, None, |node| behind(node, cli, subject.as_ref(), &mut out))?
        }
        Some(Command::Tui(args)) => tui::run(&cli.global, args, &mut out)?,
        Some(Command::Config { command }) => tui::configure(command, &mut out)?,
        None if cli.targets.is_empty() && shows_screen(&cli.global) => {
            tui::run(&cli.global, &cli::TuiArgs::default(), &mut out)?
        }
        None if cli.targets.is_empty() => on_node(&cli.global, None, |node| {
            list(node, &cli.global, &ListArgs::default(), &mut out)
        })?,
        None if cli.targets.iter().any(|target| cli::unix_target(target).is_some()) => {
            let names = unix_targets(cli)?;
            on_node(&cli.global, None, |node| unix(node, cli, &names, &mut out))?
        }
        None => {
            let queries = queries(&cli.global, &cli.targets)?;
            let watch = cli.watch.map(|time| (time, queries.as_slice()));
            on_node(&cli.global, watch, |node| ask(node, cli, &queries, &mut out))?
        }
    };
    out.flush()?;
    Ok(exit)
}

/// Whether a call without arguments shows the screen: not where text is read by a program,
/// or a form of text was asked for.
fn shows_screen(global: &Global) -> bool {
    tui::is_terminal() && !global.json && global.record.is_none() && global.verbose == 0
}

/// Runs `work` on the node that was asked for: this one, watched before for as
/// long as `watch` says, or a recorded one. A
/// recording is saved after the work, so that a failure to save loses nothing.
fn on_node(
    global: &Global,
    watch: Option<(Duration, &[Query])>,
    work: impl FnOnce(&dyn Node) -> Result<Exit, Failure>,
) -> Result<Exit, Failure> {
    if let Some(path) = &global.replay {
        let recorded = Recorded::load(path).map_err(|error| Failure::Usage(error.to_string()))?;
        return work(&recorded);
    }
    if let Some(path) = &global.record {
        can_save(path).map_err(Failure::Usage)?;
    }
    let kube = kube_options(global);
    node::check_kube(&kube).map_err(Failure::Usage)?;
    let learnt = watch.map(|(time, queries)| learning::learn(global, time, queries)).transpose()?;
    let live = LiveNode::new().map_err(|error| no_procfs(&error))?.with_timeout(global.timeout);
    // The process ends with its work: to free one by one what it read of
    // thousands of sockets would only take time.
    let live = ManuallyDrop::new(live.with_kube(kube).learnt(learnt.unwrap_or_default()));
    let Some(path) = &global.record else { return work(&*live) };
    let recorder = Recorder::new(&*live);
    let exit = work(&recorder)?;
    save(&recorder, path, global.redact)?;
    Ok(exit)
}

fn kube_options(global: &Global) -> KubeOptions {
    KubeOptions {
        kubeconfig: global.kubeconfig.clone(),
        context: global.context.clone(),
        off: global.no_kube,
        exec: global.kube_exec,
    }
}

fn no_procfs(error: &io::Error) -> Failure {
    Failure::Tool(format!(
        "/proc can't be read: {error}; mount procfs there: mount -t proc proc /proc"
    ))
}

/// Whether a recording can be written to `path`: said before anything is read.
fn can_save(path: &Path) -> Result<(), String> {
    if path.as_os_str() == "-" {
        return Err("--record writes a file, not standard output: name the file".to_owned());
    }
    let refused = |why: &str| Err(format!("--record {}: {why}", path.display()));
    if path.is_dir() {
        return refused("this is a directory: name a file in it");
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !directory.is_dir() {
        return refused(&format!("there is no directory {}", directory.display()));
    }
    let writable = rustix::fs::accessat(
        rustix::fs::CWD,
        directory,
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
        rustix::fs::AtFlags::EACCESS,
    );
    match writable {
        Ok(()) => Ok(()),
        Err(error) => refused(&format!(
            "no file can be made in {}: {}",
            directory.display(),
            io::Error::from(error)
        )),
    }
}

fn save(recorder: &Recorder<'_>, path: &Path, redact: bool) -> Result<(), Failure> {
    let mut recording = recorder.recording();
    if redact {
        node::redact(&mut recording);
    }
    recording.save(path).map_err(|error| Failure::Tool(error.to_string()))
}

/// The UNIX sockets that are asked for: they are a question of their own.
fn unix_targets(cli: &Cli) -> Result<Vec<String>, Failure> {
    if cli.flows || cli.tls || cli.watch.is_some() {
        let why = "--flows, --tls and --watch are about ports: leave them out";
        return Err(Failure::Usage(why.to_owned()));
    }
    let one = |target: &String| {
        cli::unix_target(target).ok_or_else(|| {
            Failure::Usage(format!("{target:?} is no path: ask for ports and for paths apart"))
        })
    };
    cli.targets.iter().map(one).collect()
}

/// Answers who listens on UNIX sockets.
fn unix(
    node: &dyn Node,
    cli: &Cli,
    names: &[String],
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let global = &cli.global;
    let form = answer_output(cli)?;
    let answers: Vec<_> = names.iter().map(|name| resolve::unix(node, name)).collect();
    let host = node.host().value;
    let sources = node.sources();
    match form {
        AnswerOutput::Json => view::json::write(&view::json::unix(&answers, &host, &sources), out)?,
        AnswerOutput::Yaml => view::yaml::write(&view::json::unix(&answers, &host, &sources), out)?,
        AnswerOutput::Text if cli.quiet => {
            out.write_all(view::quiet::unix(&answers).as_bytes())?;
        }
        AnswerOutput::Text => {
            let text = view::unix::answers(&answers, &host, &style(global), global.verbose > 0);
            out.write_all(text.as_bytes())?;
        }
        AnswerOutput::Dot | AnswerOutput::Mermaid | AnswerOutput::Svg => {
            let why = "a UNIX socket has no way to draw: leave -o out";
            return Err(Failure::Usage(why.to_owned()));
        }
    }
    Ok(Exit::of(answers.iter().map(|answer| answer.verdict)))
}

/// The one form of an answer that the options ask for.
fn answer_output(cli: &Cli) -> Result<AnswerOutput, Failure> {
    match (cli.output, cli.global.json) {
        (Some(output), true) if output != AnswerOutput::Json => Err(Failure::Usage(
            "--json and -o ask for two forms at once: leave one of them out".to_owned(),
        )),
        (_, true) => Ok(AnswerOutput::Json),
        (output, false) => Ok(output.unwrap_or_default()),
    }
}

/// Lists what has no port.
fn list_others(
    node: &dyn Node,
    global: &Global,
    args: &ListArgs,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let (rows, gaps) = resolve::list_others(node, !args.all_sockets);
    let host = node.host().value;
    match list_output(global, args)? {
        ListOutput::Json => {
            let sources = node.sources();
            view::json::write(&view::json::sockets(&rows, &gaps, &host, &sources), out)?;
        }
        ListOutput::Yaml => {
            let sources = node.sources();
            view::yaml::write(&view::json::sockets(&rows, &gaps, &host, &sources), out)?;
        }
        ListOutput::Table | ListOutput::Wide => {
            let text = view::unix::table(&rows, &gaps, &host, &style(global));
            out.write_all(text.as_bytes())?;
        }
        _ => {
            let why = "sockets without ports are listed as a table, as JSON or YAML: -o table, --json, -o yaml";
            return Err(Failure::Usage(why.to_owned()));
        }
    }
    let verdict = match (rows.is_empty(), gaps.is_empty()) {
        (false, _) => Verdict::Found,
        (true, true) => Verdict::NotFound,
        (true, false) => Verdict::Unknown,
    };
    Ok(Exit::of([verdict]))
}

/// Understands all targets before anything is read.
fn queries(global: &Global, targets: &[String]) -> Result<Vec<Query>, Failure> {
    let commands = Cli::command();
    if let Some(name) = targets.iter().find(|target| commands.find_subcommand(target).is_some()) {
        return Err(Failure::Usage(format!(
            "`{name}` is a command, which comes first: whereis-port {name} …"
        )));
    }
    // `-4` is taken for a number, which no port is.
    if let Some(message) = targets.iter().find_map(|target| cli::of_command(target)) {
        return Err(Failure::Usage(message));
    }
    // Only names need files.
    let names = if targets.iter().any(|t| t.bytes().any(|b| b.is_ascii_alphabetic())) {
        names(global)
    } else {
        cli::HostNames::default()
    };
    let parsed = targets.iter().map(|target| cli::parse_target(target, &names));
    let parsed: Result<Vec<Vec<Query>>, _> = parsed.collect();
    Ok(parsed.map_err(|error| Failure::Usage(error.to_string()))?.into_iter().flatten().collect())
}

/// What names mean here; names of hosts only where it is this node that is asked.
fn names(global: &Global) -> cli::HostNames {
    let here = global.replay.is_none();
    let loopback = format!("{:032x}", 1);
    cli::HostNames {
        services: node::system_text("/etc/services"),
        hosts: here.then(|| node::system_text("/etc/hosts")),
        order: if here { node::system_text("/etc/gai.conf") } else { String::new() },
        ipv6_loopback: !here
            || node::system_text("/proc/self/net/if_inet6")
                .lines()
                .any(|l| l.starts_with(&loopback)),
        commands: cli::commands(),
    }
}

/// Whether an interface that was named with an address is one of this namespace. If not, those
/// that there are.
fn has_zones(node: &dyn Node, queries: &[Query]) -> Result<(), Failure> {
    let mut zones = queries.iter().filter_map(|query| query.zone.as_ref()).peekable();
    if zones.peek().is_none() {
        return Ok(());
    }
    let links = node.links(&[node.host().value.own_netns]);
    let is_there = |zone: &String| links.value.iter().any(|link| link.name == *zone);
    match zones.find(|zone| links.gaps.is_empty() && !is_there(zone)) {
        None => Ok(()),
        Some(zone) => {
            let names: Vec<&str> =
                links.value.iter().take(NETNS_NAMED).map(|link| link.name.as_str()).collect();
            let names = names.join(", ");
            Err(Failure::Usage(format!("no interface {zone:?} is here: there is {names}, …")))
        }
    }
}

fn ask(
    node: &dyn Node,
    cli: &Cli,
    queries: &[Query],
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    has_zones(node, queries)?;
    answer_output(cli)?;
    let answer = |query| {
        let mut answer = match (&cli.from, &cli.netns) {
            (Some(sender), _) => resolve::answer_for(node, query, sender)?,
            (None, Some(netns)) => resolve::answer_in(node, query, netns)?,
            (None, None) => resolve::answer(node, query),
        };
        if cli.from.is_none() {
            resolve::add_flows(node, &mut answer, cli.flows || cli.top.is_some());
            if let Some(flows) = answer.flows.as_mut().filter(|_| cli.top.is_some()) {
                flows.only_clients(cli.top.unwrap_or_default());
            }
        }
        if cli.watch.is_some() || cli.global.replay.is_some() {
            resolve::add_dropped(node, &mut answer);
        }
        if cli.attempt {
            resolve::add_tried(node, &mut answer);
        }
        Ok(answer)
    };
    let answers: Result<Vec<_>, _> = queries.iter().map(answer).collect();
    let mut answers = answers.map_err(Failure::Usage)?;
    if cli.tls {
        resolve::add_certificates(node, &mut answers);
    }
    show(node, cli, cli.all || cli.netns.is_some(), &answers, out)
}

/// Answers which ports lead to `subject`.
fn behind(
    node: &dyn Node,
    cli: &Cli,
    subject: Option<&Subject>,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let mut answers: Vec<Answer> = subject.map(|s| resolve::reverse(node, s)).unwrap_or_default();
    if cli.tls {
        resolve::add_certificates(node, &mut answers);
    }
    show(node, cli, true, &answers, out)
}

fn show(
    node: &dyn Node,
    cli: &Cli,
    all: bool,
    answers: &[Answer],
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let global = &cli.global;
    let host = node.host().value;
    let sources = node.sources();
    let graph = || view::graph::Graph::of_answers(answers, &host, &Style::PLAIN);
    let text = match answer_output(cli)? {
        AnswerOutput::Json => {
            view::json::write(&view::json::answers(answers, &host, &sources), out)?;
            String::new()
        }
        AnswerOutput::Yaml => {
            view::yaml::write(&view::json::answers(answers, &host, &sources), out)?;
            String::new()
        }
        AnswerOutput::Dot => view::graph::dot(&graph()),
        AnswerOutput::Mermaid => view::graph::mermaid(&graph()),
        AnswerOutput::Svg => view::graph::svg(&graph()),
        AnswerOutput::Text if cli.quiet => view::quiet::answers(answers),
        AnswerOutput::Text => {
            let detail = match (global.verbose > 0, all) {
                (true, _) => Detail::Verbose,
                (false, true) => Detail::Everywhere,
                (false, false) => Detail::Usual,
            };
            view::text::answers(answers, &host, &style(global), detail, &sources)
        }
    };
    out.write_all(text.as_bytes())?;
    if answers.iter().flat_map(|answer| &answer.reach).any(Reach::is_refuted) {
        return Ok(Exit::Refuted);
    }
    Ok(Exit::of(verdicts(answers)))
}

/// The verdict of each question: a name of several addresses is found where one of them is.
fn verdicts(answers: &[Answer]) -> Vec<Verdict> {
    let mut all: Vec<Verdict> = Vec::new();
    for answer in answers {
        let goes_on = answer.query.name.as_ref().is_some_and(|name| name.at > 0);
        match all.last_mut().filter(|_| goes_on) {
            Some(known) => {
                *known = match (*known, answer.verdict) {
                    (Verdict::Found, _) | (_, Verdict::Found) => Verdict::Found,
                    (Verdict::Unknown, _) | (_, Verdict::Unknown) => Verdict::Unknown,
                    (Verdict::NotFound, Verdict::NotFound) => Verdict::NotFound,
                };
            }
            None => all.push(answer.verdict),
        }
    }
    all
}

fn list(
    node: &dyn Node,
    global: &Global,
    args: &ListArgs,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    if args.unix || args.all_sockets {
        return list_others(node, global, args, out);
    }
    let filter = ListFilter {
        proto: match (args.tcp, args.udp) {
            (true, false) => Some(Proto::Tcp),
            (false, true) => Some(Proto::Udp),
            _ => None,
        },
        ipv4: match (args.ipv4, args.ipv6) {
            (true, false) => Some(true),
            (false, true) => Some(false),
            _ => None,
        },
        ports: None,
        netns: args.netns.clone(),
        pid: args.pid,
        container: args.container.clone(),
        process: args.process.clone(),
    };
    let output = list_output(global, args)?;
    use ListOutput::{Csv, Markdown, Table, Wide};
    let has_columns = matches!(output, Table | Wide | Csv | Markdown);
    if args.columns.as_ref().is_some_and(|chosen| !has_columns && !chosen.needs_reach()) {
        return Err(Failure::Usage(
            "-O chooses the columns of a table, of Markdown or of CSV; JSON has them all, but for \
             reach: -O reach"
                .to_owned(),
        ));
    }
    let template = args.template.as_deref().map(template).transpose()?;
    let mut listing = ManuallyDrop::new(resolve::list(node, &filter));
    resolve::name_services(node, &mut listing);
    if let Some(name) = args.netns.as_ref().filter(|_| listing.rows.is_empty()) {
        is_netns(node, name).map_err(Failure::Usage)?;
    }
    // What needs no question of its own leaves rows out first.
    let (by_reach, by_cell): (Vec<_>, Vec<_>) =
        args.only.iter().partition(|only| only.needs_reach());
    listing.rows.retain(|row| by_cell.iter().all(|only| only.passes(row)));
    if needs_reach(args) {
        resolve::add_reached(node, &mut listing);
        listing.rows.retain(|row| by_reach.iter().all(|only| only.passes(row)));
    }
    if let Some(by) = &args.sort {
        view::list::sort_rows(&mut listing.rows, by);
    }
    if let Some(path) = &args.save {
        diff::save(node, path)?;
    }
    if global.record.is_some() {
        // A recording of everything can answer every question later.
        node::read_everything(node);
        resolve::read_kube(node);
    }
    let host = node.host().value;
    let sources = node.sources();
    if let Some(template) = template {
        let text = template.render(&listing, &host, &sources);
        out.write_all(text.map_err(|error| Failure::Usage(error.to_string()))?.as_bytes())?;
        return Ok(Exit::of([list_verdict(&listing)]));
    }
    let graph = || view::graph::Graph::of_list(&listing, &host, &Style::PLAIN);
    let chosen = args.columns.as_ref();
    let text = match output {
        ListOutput::Json => {
            view::json::write_list(&view::json::list(&listing, &host, &sources), out)?;
            String::new()
        }
        ListOutput::Ndjson => {
            view::json::write_list_lines(&listing, &host, &sources, out)?;
            String::new()
        }
        ListOutput::Yaml => {
            view::yaml::write(&view::json::list(&listing, &host, &sources), out)?;
            String::new()
        }
        ListOutput::Csv => {
            view::list::csv(&listing, chosen, !args.no_headers, &mut *out)?;
            String::new()
        }
        ListOutput::Markdown => view::list::markdown(&listing, &Style::PLAIN, chosen),
        ListOutput::Openmetrics => view::list::metrics(&listing),
        ListOutput::Dot => view::graph::dot(&graph()),
        ListOutput::Mermaid => view::graph::mermaid(&graph()),
        ListOutput::Svg => view::graph::svg(&graph()),
        ListOutput::Table | ListOutput::Wide => {
            let options = view::list::TableOptions {
                wide: output == ListOutput::Wide,
                headers: !args.no_headers,
                columns: args.columns.clone(),
            };
            view::list::table(&listing, &host, &style(global), &options)
        }
    };
    out.write_all(text.as_bytes())?;
    if global.verbose > 0 && matches!(output, Table | Wide | Csv) {
        out.flush()?;
        let sources = view::doctor::judged(&host, sources);
        let _ = io::stderr()
            .write_all(view::doctor::report(&host, &sources, &style(global)).as_bytes());
    }
    Ok(Exit::of([list_verdict(&listing)]))
}

/// Whether anything asks how far away ports can be reached from.
fn needs_reach(args: &ListArgs) -> bool {
    args.columns.as_ref().is_some_and(view::list::SelectedColumns::needs_reach)
        || args.sort.as_ref().is_some_and(view::list::Order::needs_reach)
        || args.only.iter().any(view::list::ColumnFilter::needs_reach)
        || args.template.as_ref().is_some_and(|text| text.contains("reach"))
}

/// A template as it was given, or from the file behind an `@`.
fn template(given: &str) -> Result<view::list::Template, Failure> {
    let text = match given.strip_prefix('@') {
        None => given.to_owned(),
        Some(path) => node::named_text(path)
            .map_err(|error| Failure::Usage(format!("can't read {path}: {error}")))?,
    };
    view::list::Template::parse(&text).map_err(|error| Failure::Usage(error.to_string()))
}

/// The one form that the options ask for.
fn list_output(global: &Global, args: &ListArgs) -> Result<ListOutput, Failure> {
    let json = global.json.then_some(("--json", ListOutput::Json));
    let lines = args.ndjson.then_some(("--ndjson", ListOutput::Ndjson));
    let mut asked = json.into_iter().chain(lines).chain(args.output.map(|output| ("-o", output)));
    let Some((option, output)) = asked.next() else { return Ok(ListOutput::default()) };
    match asked.find(|(_, other)| *other != output) {
        None => Ok(output),
        Some((other, _)) => Err(Failure::Usage(format!(
            "{option} and {other} ask for two forms at once: leave one of them out"
        ))),
    }
}

/// Whether `wanted` names a network namespace, by the names that lists show, or
/// by its inode number. If not, the names that there are.
fn is_netns(node: &dyn Node, wanted: &str) -> Result<(), String> {
    let rows = resolve::list(node, &ListFilter::default()).rows;
    let mut names: Vec<NetnsName> = rows.into_iter().filter_map(|row| row.netns.name).collect();
    let host = node.host().value.host_netns;
    let mut inodes = Vec::new();
    for netns in node.netns().value {
        let given = netns.name.map(NetnsName::Given);
        names.extend(if Some(netns.id) == host { Some(NetnsName::Host) } else { given });
        inodes.extend(netns.id.inode().map(|inode| inode.to_string()));
    }
    // A container's namespace is called like it, though nothing may listen there.
    let of_container = || {
        let mut names = node.containers().value.into_iter().filter_map(|c| c.name);
        names.any(|name| NetnsName::Given(name).is(wanted))
    };
    let is_known = names.iter().any(|name| name.is(wanted)) || inodes.iter().any(|i| i == wanted);
    if is_known || of_container() {
        return Ok(());
    }
    let mut names: Vec<String> = names.iter().map(NetnsName::to_string).collect();
    names.sort_unstable();
    names.dedup();
    let more = names.len().saturating_sub(NETNS_NAMED);
    names.truncate(NETNS_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(format!(
        "no network namespace {wanted:?} is visible; there is {}{more}, or an inode number",
        names.join(", ")
    ))
}

/// A list that found nothing says so like a question would.
fn list_verdict(listing: &Listing) -> Verdict {
    if !listing.rows.is_empty() {
        Verdict::Found
    } else if listing.gaps.iter().any(|g| g.impact <= Impact::Owner) {
        Verdict::Unknown
    } else {
        Verdict::NotFound
    }
}

fn doctor(node: &dyn Node, global: &Global, out: &mut impl Write) -> Result<Exit, Failure> {
    node::read_everything(node);
    let host = node.host().value;
    let mut sources = view::doctor::judged(&host, node.sources());
    if global.replay.is_none() {
        sources.extend(node::probe_reports());
        sources.extend(node::kube_reports(&kube_options(global)));
    }
    if global.json {
        view::json::write(&view::json::doctor(&host, &sources), out)?;
    } else {
        out.write_all(view::doctor::report(&host, &sources, &style(global)).as_bytes())?;
    }
    let whole = sources.iter().all(|source| source.ok);
    Ok(if whole { Exit::Found } else { Exit::Unknown })
}

/// Explains a code, or lists all.
fn explain(global: &Global, code: Option<&str>, out: &mut impl Write) -> Result<Exit, Failure> {
    use view::explain;
    let style = style(global);
    let text = match code {
        None => explain::list(&style),
        Some(code) => {
            let pages = explain::of(code);
            if pages.is_empty() {
                let like = explain::like(code);
                let hint = match like.is_empty() {
                    true => String::new(),
                    false => format!("; codes like it: {}", like.join(", ")),
                };
                return Err(Failure::Usage(format!(
                    "no code is called {code:?}{hint}; `whereis-port explain` lists them all"
                )));
            }
            explain::text(&pages, &style)
        }
    };
    out.write_all(text.as_bytes())?;
    Ok(Exit::Found)
}

fn pin(group: Option<&str>, out: &mut impl Write) -> Result<Exit, Failure> {
    let id = match group {
        Some(name) => {
            let groups = node::system_text("/etc/group");
            let id = node::group_id(name, &groups).ok_or_else(|| {
                Failure::Usage(format!("there is no group {name:?}; see getent group"))
            })?;
            Some(id)
        }
        None => None,
    };
    let pinned = node::pin(id).map_err(Failure::Tool)?;
    writeln!(
        out,
        "pinned in {}, version {}: readable by root{}",
        view::clean(&pinned.directory.to_string_lossy()),
        pinned.version,
        group.map_or_else(String::new, |name| format!(" and the group {}", view::clean(name))),
    )?;
    if pinned.mounted {
        writeln!(out, "a bpffs was mounted there; whereis-port unpin removes it")?;
    }
    Ok(Exit::Found)
}

fn unpin(out: &mut impl Write) -> Result<Exit, Failure> {
    let removed = node::unpin().map_err(Failure::Tool)?;
    if removed.is_empty() {
        writeln!(out, "nothing was pinned")?;
    }
    for pin in removed {
        writeln!(out, "removed {}", view::clean(&pin.to_string_lossy()))?;
    }
    Ok(Exit::Found)
}

fn style(global: &Global) -> Style {
    let terminal = io::stdout().is_terminal();
    let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0.min(WIDEST)));
    let style = Style::detect(global.color, terminal, |name| std::env::var(name).ok(), width);
    if global.plain { style.plain() } else { style }
}
