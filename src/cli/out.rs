//! The one place where commands write. Standard output has results, standard error has all else. Where one of them is
//! closed or full, a command goes on and ends by its own exit code: the macros that print would panic.

use std::fmt::Display;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::process::ExitCode;

/// A line on standard error. Where that is closed or full there is nobody to tell.
pub(super) fn tell(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Says something to a person, on standard error.
pub(super) fn warn(message: impl Display) {
    tell(format_args!("quaymaster: {message}"));
}

/// Says what went wrong, for a person, and answers the exit code for it.
pub(super) fn failed(message: impl Display) -> ExitCode {
    warn(message);
    ExitCode::FAILURE
}

/// A result and a line break on standard output.
pub(super) fn print(text: &str) -> ExitCode {
    print_with(|out| writeln!(out, "{text}"))
}

/// Results on standard output. A reader that has seen enough (`| head`) is no failure of ours to report.
pub(super) fn print_with(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => failed(format_args!("cannot write to standard output: {error}")),
    }
}
