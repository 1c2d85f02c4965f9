use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Cli;
use super::out::print_with;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  quaymaster completions bash > /etc/bash_completion.d/quaymaster")]
pub(super) struct Args {
    shell: Shell,
}

pub(super) fn run(args: &Args) -> ExitCode {
    // Into memory first: the generator panics if it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "quaymaster", &mut script);
    print_with(|out| out.write_all(&script))
}
