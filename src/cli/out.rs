//! The one place where commands write: results to standard output, everything else to standard error. If one of them is
//! closed or full, a command does not panic, as it would with the print macros.

use std::fmt::Display;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::process::ExitCode;

/// Writes a line to standard error. If that is closed or full, the line is lost.
pub(super) fn tell(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes a message for people to standard error.
pub(super) fn warn(message: impl Display) {
    tell(format_args!("quaymaster: {message}"));
}

/// Writes an error message for people to standard error, and returns the exit code of a failure.
pub(super) fn failed(message: impl Display) -> ExitCode {
    warn(message);
    ExitCode::FAILURE
}

/// Writes a result and a line break to standard output.
pub(super) fn print(text: &str) -> ExitCode {
    print_with(|out| writeln!(out, "{text}"))
}

/// Writes results to standard output. A reader that stops early (`| head`) is not a failure.
pub(super) fn print_with(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => failed(format_args!("cannot write to standard output: {error}")),
    }
}
