//! Our list against `ss` and `lsof`, on sockets made at random.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use lab::{Lab, Netns, Proc, Test};

/// What is compared of one socket, besides its inode.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Listener {
    proto: String,
    address: String,
    port: u64,
    pids: BTreeSet<u64>,
}

/// A small generator: what it makes must be made again from the seed alone.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Result<&'a T> {
        let index = usize::try_from(self.below(from.len().max(1) as u64))?;
        from.get(index).context("nothing to pick from")
    }
}

#[test]
fn our_list_is_what_ss_and_lsof_say() -> Test {
    lab::root_or_skip!();
    let seed = match std::env::var("WHEREIS_PORT_SEED") {
        Ok(seed) => seed.parse().context("WHEREIS_PORT_SEED")?,
        Err(_) => std::time::UNIX_EPOCH.elapsed()?.as_nanos() as u64 | 1,
    };
    // Shown when the test fails; the same sockets come from the same seed.
    println!("WHEREIS_PORT_SEED={seed}");
    let lab = Lab::new()?;
    let mut all = vec![lab.host().clone()];
    for name in ["a", "b", "c", "d"] {
        all.push(lab.netns(name)?);
    }
    let procs = populate(&lab, &all, &mut Random(seed))?;

    let run = lab.whereis(&["list"])?;
    ensure!(run.code == Some(0), "{:?}: {}", run.code, run.stderr);
    let mut ours: BTreeMap<u64, BTreeMap<u64, Listener>> = BTreeMap::new();
    for view in run.listeners()? {
        let listener = Listener {
            proto: view.0["proto"].as_str().context("proto")?.to_owned(),
            address: view.0["address"].as_str().context("address")?.to_owned(),
            port: view.0["port"].as_u64().context("port")?,
            pids: view.pids().into_iter().collect(),
        };
        let inode = view.0["socket_inode"].as_u64().context("inode")?;
        let netns = ours.entry(view.netns().context("netns")?).or_default();
        ensure!(netns.insert(inode, listener).is_none(), "{inode} is listed twice");
    }
    let mut count = 0;
    for netns in &all {
        let mine = ours.remove(&netns.inode).unwrap_or_default();
        let theirs = ss(&lab, netns)?;
        ensure!(mine == theirs, "seed {seed}, {}:\n{}", netns.name, difference(&mine, &theirs));
        if lab::has("lsof") {
            let mine: BTreeSet<_> =
                mine.iter().flat_map(|(i, l)| l.pids.iter().map(|&pid| (pid, *i))).collect();
            let theirs = lsof(&lab, netns)?;
            ensure!(mine == theirs, "seed {seed}, {}, lsof:\n{mine:?}\n{theirs:?}", netns.name);
        }
        count += theirs.len();
    }
    ensure!(ours.is_empty(), "{ours:?}");
    ensure!(count > 200, "only {count} sockets: the test tests nothing");
    drop(procs);
    Ok(())
}

/// Starts processes with sockets of every kind, a third of the ports being
/// used in several namespaces.
fn populate(lab: &Lab, all: &[Netns], random: &mut Random) -> Result<Vec<Proc>> {
    let mut next: BTreeMap<u64, u16> = BTreeMap::new();
    let mut procs = Vec::new();
    for _ in 0..48 {
        let lives = random.pick(all)?.clone();
        let mut args = String::new();
        let target = if random.below(4) == 0 { random.pick(all)?.clone() } else { lives.clone() };
        for _ in 0..=random.below(12) {
            let port = next.entry(target.inode).or_insert(3000);
            *port += 1;
            let proto = random.pick(&["tcp", "udp"])?;
            let address = random.pick(&[
                "127.0.0.1",
                "127.0.0.2",
                "0.0.0.0",
                "[::1]",
                "[::]",
                "[::ffff:127.0.0.1]",
            ])?;
            write!(args, "{proto} {address}:{port} ")?;
        }
        if args.contains("[::ffff:") || random.below(2) == 0 {
            args.push_str("--v6only 0 ");
        } else {
            args.push_str("--v6only 1 ");
        }
        match random.below(5) {
            0 => write!(args, "--fork {}", 1 + random.below(3))?,
            1 => write!(args, "--dup {}", 1 + random.below(3))?,
            2 => write!(args, "--pass")?,
            3 => write!(args, "--fork 1 --dup 1 --reuseport")?,
            _ => {}
        }
        if target.inode != lives.inode {
            write!(args, " --socket-netns {}", target.path.display())?;
        }
        let uid = *random.pick(&[0, 0, 65534])?;
        // Only root may make a socket in another namespace.
        let uid = if target.inode == lives.inode { uid } else { 0 };
        procs.push(lab.listen_as(&lives, uid, &args)?);
    }
    Ok(procs)
}

fn ss(lab: &Lab, netns: &Netns) -> Result<BTreeMap<u64, Listener>> {
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
        let listener = Listener {
            proto: fields[0].to_owned(),
            address: address.to_owned(),
            port: port.parse()?,
            pids,
        };
        found.insert(inode.parse()?, listener);
    }
    Ok(found)
}

/// Which process of the lab holds which socket of `netns`.
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
            // A socket of another namespace has no name in this one.
            "n" if value.contains(':') => drop(found.insert((pid, inode))),
            _ => {}
        }
    }
    Ok(found)
}

fn difference(mine: &BTreeMap<u64, Listener>, theirs: &BTreeMap<u64, Listener>) -> String {
    let mut text = String::new();
    let inodes: BTreeSet<_> = mine.keys().chain(theirs.keys()).collect();
    for inode in inodes {
        let (mine, theirs) = (mine.get(inode), theirs.get(inode));
        if mine != theirs {
            text.push_str(&format!("{inode}: we say {mine:?}\n      ss says {theirs:?}\n"));
        }
    }
    text
}
