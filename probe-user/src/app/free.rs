//! The command `free`: ports that a server could have.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write};

use super::{Failure, style};
use crate::cli::{FreeArgs, Global};
use crate::exit::Exit;
use crate::model::{FreePorts, Port, Proto, Query, Scope, SkipReason};
use crate::node::{self, HeldPort, Node};
use crate::resolve;
use crate::view;

/// How often ports are looked for that can be held: others may take them meanwhile.
const TRIES: usize = 8;

/// The range, understood before anything is read.
pub(super) fn range(global: &Global, args: &FreeArgs) -> Result<Query, Failure> {
    if args.hold && global.replay.is_some() {
        let why = "nothing can be held on a recording: leave --hold out";
        return Err(Failure::Usage(why.to_owned()));
    }
    let mut queries = super::queries(global, std::slice::from_ref(&args.range))?;
    let Some(query) = queries.pop().filter(|_| queries.is_empty()) else {
        return Err(Failure::Usage(format!("{:?} is several ranges: name one", args.range)));
    };
    match query.scope {
        Scope::Everywhere => Ok(query),
        Scope::Address(_) => Err(Failure::Usage(format!(
            "{:?} has an address: a range is FROM-TO or FROM-TO/PROTO, for all addresses",
            query.text
        ))),
    }
}

pub(super) fn run(
    node: &dyn Node,
    global: &Global,
    args: &FreeArgs,
    query: &Query,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let count = usize::from(args.count);
    let mut lost = BTreeSet::new();
    let (mut free, mut held);
    let mut tries = 0;
    loop {
        free = resolve::free_ports(node, query.ports, query.proto, count, &lost);
        held = Vec::new();
        if !args.hold || tries == TRIES {
            break;
        }
        tries += 1;
        let before = lost.len();
        for port in &free.ports {
            match hold(*port, query.proto) {
                Ok(sockets) => held.extend(sockets),
                Err(_) => _ = lost.insert(*port),
            }
        }
        if lost.len() == before {
            break;
        }
    }
    if args.hold {
        free.ports.retain(|port| !lost.contains(port));
    }
    if global.json {
        view::json::write(&view::json::free(&free, args.hold), out)?;
    } else {
        out.write_all(view::wait::ports(&free).as_bytes())?;
        if free.ports.len() < count || free.doubtful || global.verbose > 0 {
            let why = view::wait::passed(&free, count, &style(global));
            let _ = io::stderr().write_all(why.as_bytes());
        }
    }
    out.flush()?;
    if args.hold && !free.ports.is_empty() {
        until_closed()?;
    }
    drop(held);
    Ok(exit(&free, count))
}

fn exit(free: &FreePorts, count: usize) -> Exit {
    let unknown = free.passed.iter().any(|(why, _)| *why == SkipReason::NotKnown);
    match free.ports.len() >= count {
        true if free.doubtful => Exit::Unknown,
        true => Exit::Found,
        false if unknown => Exit::Unknown,
        false => Exit::NotFound,
    }
}

/// All or nothing.
fn hold(port: Port, proto: Option<Proto>) -> io::Result<Vec<HeldPort>> {
    let protos = Proto::ALL.into_iter().filter(|known| proto.is_none_or(|proto| proto == *known));
    protos.map(|proto| node::hold_port(proto, port)).collect()
}

/// Reads standard input to its end, and keeps nothing of it.
fn until_closed() -> Result<(), Failure> {
    let mut input = io::stdin().lock();
    let mut nothing = [0; 4096];
    loop {
        match input.read(&mut nothing) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::Tool(format!("reading standard input: {error}"))),
        }
    }
}
