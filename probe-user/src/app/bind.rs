//! The command `bind`: whether a socket could be bound.

use std::io::Write;

use super::{Failure, style};
use crate::cli::{BindArgs, Global};
use crate::exit::Exit;
use crate::model::{Bind, Verdict};
use crate::node::Node;
use crate::resolve::{self, BindQuestion};
use crate::view;

/// The questions, understood before anything is read.
pub(super) fn questions(global: &Global, args: &BindArgs) -> Result<Vec<BindQuestion>, Failure> {
    if args.attempt && global.replay.is_some() {
        return Err(Failure::Usage(
            "nothing can be tried on a recording: leave --try out".to_owned(),
        ));
    }
    let one = |query: crate::model::Query| {
        if query.ports.first != query.ports.last {
            let why = format!("{:?} is several ports: a socket is bound to one", query.text);
            return Err(Failure::Usage(why));
        }
        Ok(BindQuestion {
            query,
            netns: args.netns.clone(),
            uid: args.uid,
            reuse_addr: args.reuse_addr(),
            reuse_port: args.reuse_port(),
            v6only: args.ipv6_only,
            device: args.device.clone(),
            attempt: args.attempt,
        })
    };
    super::queries(global, &args.targets)?.into_iter().map(one).collect()
}

/// Answers them.
pub(super) fn run(
    node: &dyn Node,
    global: &Global,
    questions: &[BindQuestion],
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let mut binds: Vec<Bind> = Vec::new();
    for question in questions {
        binds.extend(resolve::bind(node, question).map_err(Failure::Usage)?);
    }
    let host = node.host().value;
    let sources = node.sources();
    if global.json {
        view::json::write(&view::json::binds(&binds, &host, &sources), out)?;
    } else {
        let text = view::bind::text(&binds, &host, &style(global), global.verbose > 0, &sources);
        out.write_all(text.as_bytes())?;
    }
    Ok(Exit::of(binds.iter().map(verdict)))
}

/// What it says of an exit status: it is found that it works, or surely not.
fn verdict(bind: &Bind) -> Verdict {
    match bind.works() {
        Some(true) => Verdict::Found,
        Some(false) => Verdict::NotFound,
        None => Verdict::Unknown,
    }
}
