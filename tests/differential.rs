//! Our list against `ss` and `lsof`, on sockets made at random.

use std::collections::BTreeSet;

use anyhow::ensure;
use lab::{Crowd, Lab, Random, Test, difference, listed, lsof, ss};

#[test]
fn our_list_is_what_ss_and_lsof_say() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let crowd = Crowd::gather(&lab, &mut Random::new()?, 48, 12)?;

    let run = lab.whereis(&["list"])?;
    ensure!(run.code == Some(0), "{:?}: {}", run.code, run.stderr);
    let mut ours = listed(&run)?;
    let mut count = 0;
    for netns in &crowd.netns {
        let mine = ours.remove(&netns.inode).unwrap_or_default();
        let theirs = ss(&lab, netns)?;
        ensure!(mine == theirs, "{}:\n{}", netns.name, difference(&mine, &theirs));
        if lab::has("lsof") {
            let mine: BTreeSet<_> =
                mine.iter().flat_map(|(i, l)| l.pids.iter().map(|&pid| (pid, *i))).collect();
            let theirs = lsof(&lab, netns)?;
            ensure!(mine == theirs, "{}, lsof:\n{mine:?}\n{theirs:?}", netns.name);
        }
        count += theirs.len();
    }
    ensure!(ours.is_empty(), "{ours:?}");
    ensure!(count > 200, "only {count} sockets: the test tests nothing");
    Ok(())
}
