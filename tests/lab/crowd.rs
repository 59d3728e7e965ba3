//! Sockets made at random, and what `ss` and `lsof` say of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};

use crate::netns::Netns;
use crate::node::Lab;
use crate::process::Proc;
use crate::tool::Run;

/// What is compared of one socket, besides its inode.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// `tcp` or `udp`.
    pub proto: String,
    /// The address it is bound to.
    pub address: String,
    /// Its port.
    pub port: u64,
    /// The processes that hold it.
    pub pids: BTreeSet<u64>,
}

/// A small generator: what it makes must be made again from the seed alone.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The generator, and the seed: from `WHEREIS_PORT_SEED`, else from the clock.
    /// The seed is printed, which is shown when the test fails.
    ///
    /// # Errors
    /// When the variable is no number.
    pub fn new() -> Result<Self> {
        let seed = match std::env::var("WHEREIS_PORT_SEED") {
            Ok(seed) => seed.parse().context("WHEREIS_PORT_SEED")?,
            Err(_) => std::time::UNIX_EPOCH.elapsed()?.as_nanos() as u64 | 1,
        };
        println!("WHEREIS_PORT_SEED={seed}");
        Ok(Self(seed))
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }

    /// One of these.
    ///
    /// # Errors
    /// When there are none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Result<&'a T> {
        let index = usize::try_from(self.below(from.len().max(1) as u64))?;
        from.get(index).context("nothing to pick from")
    }
}

/// Processes with sockets of every kind.
#[derive(Debug)]
pub struct Crowd {
    /// The namespaces they are in, the host's first.
    pub netns: Vec<Netns>,
    /// Processes whose sockets only a thread holds, where `ss` and `lsof` don't look.
    threads: BTreeSet<u64>,
    _procs: Vec<Proc>,
}

impl Crowd {
    /// Makes four namespaces beside the host's and starts `processes` with at
    /// most `sockets` each. A third of the ports is used in several namespaces.
    ///
    /// # Errors
    /// When a process does not start.
    pub fn gather(lab: &Lab, random: &mut Random, processes: u32, sockets: u64) -> Result<Self> {
        let mut all = vec![lab.host().clone()];
        for name in ["a", "b", "c", "d"] {
            all.push(lab.netns(name)?);
        }
        let mut next: BTreeMap<u64, u16> = BTreeMap::new();
        let (mut procs, mut threads) = (Vec::new(), BTreeSet::new());
        for _ in 0..processes {
            let lives = random.pick(&all)?.clone();
            let elsewhere = random.below(4) == 0;
            let target = if elsewhere { random.pick(&all)?.clone() } else { lives.clone() };
            let mut args = binds(random, sockets, next.entry(target.inode).or_insert(3000))?;
            match random.below(7) {
                0 => write!(args, " --fork {}", 1 + random.below(3))?,
                1 => write!(args, " --dup {}", 1 + random.below(3))?,
                2 => args.push_str(" --pass"),
                3 => args.push_str(" --fork 1 --dup 1 --reuseport"),
                4 => args.push_str(" --thread"),
                5 => write!(args, " --clients {}", 1 + random.below(8))?,
                _ => {}
            }
            if target.inode != lives.inode {
                write!(args, " --socket-netns {}", target.path.display())?;
            }
            // Only root may make a socket in another namespace.
            let uid = *random.pick(&[0, 0, 65534])?;
            let uid = if target.inode == lives.inode { uid } else { 0 };
            let proc = lab.listen_as(&lives, uid, &args)?;
            threads.extend(args.contains("--thread").then_some(u64::from(proc.pid)));
            procs.push(proc);
        }
        Ok(Self { netns: all, threads, _procs: procs })
    }
}

fn binds(random: &mut Random, sockets: u64, next: &mut u16) -> Result<String> {
    let mut args = String::new();
    for _ in 0..=random.below(sockets) {
        *next += 1;
        let proto = random.pick(&["tcp", "udp"])?;
        let address = random.pick(&[
            "127.0.0.1",
            "127.0.0.2",
            "0.0.0.0",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
        ])?;
        write!(args, "{proto} {address}:{next} ")?;
    }
    let mapped = args.contains("[::ffff:") || random.below(2) == 0;
    args.push_str(if mapped { "--v6only 0" } else { "--v6only 1" });
    Ok(args)
}

impl Crowd {
    /// Compares what the tool lists in a namespace with what `ss` and `lsof` say.
    ///
    /// # Errors
    /// When they differ.
    pub fn compare(&self, lab: &Lab, netns: &Netns, mut mine: BTreeMap<u64, Entry>) -> Result<()> {
        for entry in mine.values_mut() {
            entry.pids.retain(|pid| !self.threads.contains(pid));
        }
        let theirs = ss(lab, netns)?;
        ensure!(mine == theirs, "{}, ss:\n{}", netns.name, difference(&mine, &theirs));
        if crate::has("lsof") {
            let mine: BTreeSet<_> =
                mine.iter().flat_map(|(i, l)| l.pids.iter().map(|&pid| (pid, *i))).collect();
            let theirs = lsof(lab, netns)?;
            let differ: Vec<_> = mine.symmetric_difference(&theirs).collect();
            ensure!(differ.is_empty(), "{}, lsof: {differ:?}", netns.name);
        }
        Ok(())
    }
}

/// What a list of the tool says, by namespace and inode.
///
/// # Errors
/// When a socket is listed twice.
pub fn listed(run: &Run) -> Result<BTreeMap<u64, BTreeMap<u64, Entry>>> {
    let mut all: BTreeMap<u64, BTreeMap<u64, Entry>> = BTreeMap::new();
    for view in run.listeners()? {
        let entry = Entry {
            proto: view.0["proto"].as_str().context("proto")?.to_owned(),
            address: view.0["address"].as_str().context("address")?.to_owned(),
            port: view.0["port"].as_u64().context("port")?,
            pids: view.pids().into_iter().collect(),
        };
        let inode = view.0["socket_inode"].as_u64().context("inode")?;
        let netns = all.entry(view.netns().context("netns")?).or_default();
        ensure!(netns.insert(inode, entry).is_none(), "{inode} is listed twice");
    }
    Ok(all)
}

/// What `ss` says of a namespace, by inode.
fn ss(lab: &Lab, netns: &Netns) -> Result<BTreeMap<u64, Entry>> {
    let output = lab.command(netns, &["ss", "-Htulnpe"])?.output()?;
    ensure!(output.status.success(), "ss: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(4).with_context(|| format!("ss: {line}"))?;
        let (address, port) = local.rsplit_once(':').with_context(|| format!("ss: {line}"))?;
        let address = match address.trim_matches(['[', ']']) {
            "*" => "::",
            other => other,
        };
        let inode = fields.iter().find_map(|f| f.strip_prefix("ino:")).context("ss: no inode")?;
        let pids = line
            .split("pid=")
            .skip(1)
            .filter_map(|rest| rest.split(',').next()?.parse().ok())
            .collect();
        let entry = Entry {
            proto: fields[0].to_owned(),
            address: address.to_owned(),
            port: port.parse()?,
            pids,
        };
        found.insert(inode.parse()?, entry);
    }
    Ok(found)
}

/// Which process of the lab holds which socket of `netns`, as `lsof` says.
fn lsof(lab: &Lab, netns: &Netns) -> Result<BTreeSet<(u64, u64)>> {
    let pids: Vec<String> = lab.processes().iter().map(ToString::to_string).collect();
    let argv = ["lsof", "-nP", "-i", "-a", "-p", &pids.join(","), "-F", "pdn"];
    let output = lab.command(netns, &argv)?.output()?;
    let text = String::from_utf8(output.stdout)?;
    let (mut found, mut pid, mut inode) = (BTreeSet::new(), 0, 0);
    for line in text.lines() {
        let Some((field, value)) = line.split_at_checked(1) else { continue };
        match field {
            "p" => pid = value.parse()?,
            "d" => inode = value.parse()?,
            // A socket of another namespace has no name in this one, and a
            // connection is no listener.
            "n" if value.contains(':') && !value.contains("->") => {
                found.insert((pid, inode));
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Where two of them differ, for a person to read.
pub fn difference(mine: &BTreeMap<u64, Entry>, theirs: &BTreeMap<u64, Entry>) -> String {
    let mut text = String::new();
    let inodes: BTreeSet<_> = mine.keys().chain(theirs.keys()).collect();
    for inode in inodes {
        let (mine, theirs) = (mine.get(inode), theirs.get(inode));
        if mine != theirs {
            text.push_str(&format!("{inode}: we say {mine:?}\n      they say {theirs:?}\n"));
        }
    }
    text
}
