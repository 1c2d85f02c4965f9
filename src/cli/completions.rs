use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Cli;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  quaymaster completions bash > /etc/bash_completion.d/quaymaster")]
pub(super) struct Args {
    shell: Shell,
}

pub(super) fn run(args: &Args) -> ExitCode {
    clap_complete::generate(args.shell, &mut Cli::command(), "quaymaster", &mut std::io::stdout());
    ExitCode::SUCCESS
}
