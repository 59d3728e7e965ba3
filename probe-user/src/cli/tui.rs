//! What `tui` and `config` take.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::trace;

/// The help behind the options of `tui`.
pub(super) const HELP: &str = "\
Examples:
  whereis-port                              the same, where a terminal reads and shows
  whereis-port tui --demo                   a recorded node with two kind clusters, without root
  whereis-port tui --replay node.json       the node that somebody recorded
  whereis-port tui --print 120x40           one screen as text
  whereis-port tui --demo --print 100x30 --keys / 6 4 4 3 enter enter

Keys: ? shows all of them. j k move, Enter follows the path of a port, / filters (words, port:6443,
cluster:NAME, state:new), g groups, s sorts, Tab and 1 to 4 change the view, y copies, q ends.
They and the colours can be changed: whereis-port config example.

Exit status:
  0  ended by its user, by a signal, or because the terminal went away
  2  bad usage or configuration
  4  the tool itself failed";

/// How the screen is shown.
#[derive(Debug, Clone, Args)]
pub struct TuiArgs {
    /// Show a small recorded node that comes with the tool
    #[arg(long)]
    pub demo: bool,
    /// Read the configuration from FILE instead of ~/.config/whereis-port/config.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How often readings are compared where events can't be had
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = trace::interval)]
    pub interval: Duration,
    /// Compare readings even where eBPF could tell what happens
    #[arg(long)]
    pub no_ebpf: bool,
    /// Print one screen of this size as text, and end
    #[arg(long, value_name = "COLUMNSxLINES", value_parser = size)]
    pub print: Option<(u16, u16)>,
    /// The keys to press before: enter, esc, space, ctrl-l, or a character each
    #[arg(long, value_name = "KEY", num_args = 1.., allow_hyphen_values = true)]
    pub keys: Vec<String>,
}

impl Default for TuiArgs {
    fn default() -> Self {
        Self {
            demo: false,
            config: None,
            interval: Duration::from_secs(1),
            no_ebpf: false,
            print: None,
            keys: Vec::new(),
        }
    }
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether a configuration is right, and where not: FILE:LINE and the reason
    Check {
        /// The file; ~/.config/whereis-port/config.toml when none is named
        file: Option<PathBuf>,
    },
    /// Print a configuration with every setting as it usually is
    Example,
}

/// The largest screen that is printed: far more than anybody's.
const LARGEST: u16 = 1_000;

fn size(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("write COLUMNSxLINES, each from 1 to {LARGEST}: 120x40");
    let (columns, lines) = text.split_once('x').ok_or_else(wrong)?;
    let number = |text: &str| {
        text.parse().ok().filter(|number| (1..=LARGEST).contains(number)).ok_or_else(wrong)
    };
    Ok((number(columns)?, number(lines)?))
}
