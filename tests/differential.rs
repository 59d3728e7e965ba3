//! Our list against `ss` and `lsof`, on sockets made at random.

use anyhow::ensure;
use lab::{Crowd, Lab, Random, Test, listed};

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
        count += mine.len();
        crowd.compare(&lab, netns, mine)?;
    }
    ensure!(ours.is_empty(), "{ours:?}");
    ensure!(count > 200, "only {count} sockets: the test tests nothing");
    Ok(())
}
