//! The command `audit`: what others can reach, and what of it somebody should look at.

use std::io::Write;
use std::path::Path;

use super::{Failure, style};
use crate::cli::{AuditArgs, AuditOutput, AuditSender, Global};
use crate::exit::Exit;
use crate::model::{Audit, Vantage};
use crate::node::{self, Node};
use crate::resolve::{self, AuditOptions, AuditPolicy, Profiles, TomlError};
use crate::view;

/// The most bytes that a policy or a file of profiles has.
const LARGEST: u64 = 4 << 20;

/// What is asked, understood before anything is read of the node.
pub(super) fn understand(global: &Global, args: &AuditArgs) -> Result<AuditOptions, Failure> {
    if args.generate_policy && global.json {
        return Err(Failure::Usage("a policy is TOML: leave --json out".to_owned()));
    }
    form(global, args)?;
    let policy = args.policy.as_deref().map(|path| {
        let text = read(path)?;
        AuditPolicy::parse(&text).map_err(|wrong| refuse(path, &wrong))
    });
    let mut profiles: Option<Profiles> = None;
    for name in args.profile.iter().flatten() {
        let path = Path::new(name);
        let more = if name.is_empty() {
            Profiles::by_themselves()
        } else if name.contains('/') || path.extension().is_some_and(|e| e == "toml") {
            Profiles::parse(&read(path)?).map_err(|wrong| refuse(path, &wrong))?
        } else {
            Profiles::named(name).map_err(Failure::Usage)?
        };
        profiles = Some(match profiles {
            Some(known) => known.and(more),
            None => more,
        });
    }
    let sender = |sender: &AuditSender| match sender {
        AuditSender::Outside => Vantage::Outside,
        AuditSender::Containers => Vantage::Containers,
        AuditSender::Node => Vantage::Node,
        AuditSender::Loopback => Vantage::Loopback,
    };
    let senders = args.senders.iter().map(sender).collect();
    let netns = args.netns.clone();
    Ok(AuditOptions { policy: policy.transpose()?, senders, profiles, netns, every: args.every })
}

fn read(path: &Path) -> Result<String, Failure> {
    super::reading::text(path, LARGEST)
}

/// How many mistakes of a file are told.
const MISTAKES: usize = 20;

/// What is wrong with a file, a line for each: the last one is the failure.
fn refuse(path: &Path, wrong: &[TomlError]) -> Failure {
    let path = path.display();
    let mut last = format!("{path} is wrong");
    for (at, wrong) in wrong.iter().take(MISTAKES).enumerate() {
        if at > 0 {
            super::complain(&last, Exit::Usage);
        }
        last = format!("{path}:{wrong}");
    }
    Failure::Usage(last)
}

/// The one form that the options ask for.
fn form(global: &Global, args: &AuditArgs) -> Result<AuditOutput, Failure> {
    match (global.json, args.output) {
        (true, None | Some(AuditOutput::Json)) => Ok(AuditOutput::Json),
        (true, Some(_)) => Err(Failure::Usage(
            "--json and -o ask for two forms at once: leave one of them out".to_owned(),
        )),
        (false, output) => Ok(output.unwrap_or_default()),
    }
}

/// Audits the node.
pub(super) fn run(
    node: &dyn Node,
    global: &Global,
    args: &AuditArgs,
    options: &AuditOptions,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    if let Some(name) = &args.netns {
        super::is_netns(node, name).map_err(Failure::Usage)?;
    }
    let audit = std::mem::ManuallyDrop::new(resolve::audit(node, options));
    if global.record.is_some() {
        // A recording of everything can answer every question later.
        node::read_everything(node);
        resolve::read_kube(node);
    }
    let host = node.host().value;
    if args.generate_policy {
        out.write_all(view::audit::policy(&audit).as_bytes())?;
        return Ok(match audit.gaps.is_empty() || !audit.is_partial() {
            true => Exit::Found,
            false => Exit::Unknown,
        });
    }
    let sources = node.sources();
    match form(global, args)? {
        AuditOutput::Json => {
            view::json::write(&view::json::audit(&audit, &host, &sources), out)?;
        }
        AuditOutput::Sarif => view::audit::sarif(&audit, out)?,
        AuditOutput::Junit => out.write_all(view::audit::junit(&audit, &host).as_bytes())?,
        AuditOutput::Markdown => {
            out.write_all(view::audit::markdown(&audit, &host).as_bytes())?;
        }
        AuditOutput::Table => {
            let text =
                view::audit::text(&audit, &host, &style(global), global.verbose > 0, &sources);
            out.write_all(text.as_bytes())?;
        }
    }
    Ok(exit(&audit))
}

fn exit(audit: &Audit) -> Exit {
    if !audit.findings.is_empty() {
        Exit::NotFound
    } else if audit.is_partial() {
        Exit::Unknown
    } else {
        Exit::Found
    }
}
