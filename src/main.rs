//! Reads the command line and hands over to a command.

use std::process::ExitCode;

fn main() -> ExitCode {
    quaymaster::cli::main()
}
