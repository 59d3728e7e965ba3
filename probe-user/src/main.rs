//! The `whereis-port` command. All of it is in the library, to be testable.

use std::process::ExitCode;

fn main() -> ExitCode {
    whereis_port::app::main()
}
