//! What `diff` takes.

use std::path::PathBuf;

use clap::Args;

/// The help behind the options of `diff`.
pub(super) const HELP: &str = "\
A is a recording (--record FILE list, or --record FILE audit) or a baseline (list --save FILE); so
is B. Without B it is this node as it is now. Compared is who has each port, by which way it is
taken and where that leads, and who gets to it. A process that was started anew is the same owner:
-v says so. Namespaces are known by their names, so that a new inode is no difference.

Examples:
  whereis-port list --save before.json       keep what there is now
  whereis-port diff before.json              what is different, after an update or a night
  whereis-port diff monday.json tuesday.json two recordings, on any machine
  whereis-port diff before.json --json | jq '.changes[] | select(.kind == \"came\")'

Exit status:
  0  nothing is different          1  something is
  2  bad usage, or a file that can't be read
  3  no sure difference, but something could not be read on one side (it is said what)
  4  the tool itself failed";

/// What is compared.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// What was: a recording or a baseline
    #[arg(value_name = "A")]
    pub before: PathBuf,
    /// What is: a recording or a baseline; this node now when it is not given
    #[arg(value_name = "B", conflicts_with = "replay")]
    pub after: Option<PathBuf>,
}
