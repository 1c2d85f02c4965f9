//! The log. It goes to standard error, because standard output is for what commands print.
//!
//! Spans are named `noun.verb`, fields `noun.field` (`session.id`, `tenant.id`, `request.id`, `http.status`).

use std::io::{self, IsTerminal};
use std::panic;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::settings::{Log, LogFormat};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("log.level is not valid")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    #[error("the log has already been started")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts the log of this process, and sends panics into it.
///
/// # Errors
/// The level is not valid, or a log has already been started.
pub fn init(settings: &Log) -> Result<(), Error> {
    let terminal = io::stderr().is_terminal();
    let json = match settings.format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => !terminal,
    };
    subscriber(&settings.level, json, terminal, io::stderr)?.try_init()?;
    panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref().map(String::as_str));
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(panic.place = place, panic.message = text.unwrap_or("no message"), "panic");
    }));
    Ok(())
}

/// Returns the subscriber that writes the lines: in JSON, with the spans under `spans` and the outermost first, or as text
/// for people.
///
/// A verb's warning has the id of its request only through that list. The innermost span is not written a second time.
///
/// # Errors
/// The level is not valid.
pub(crate) fn subscriber<W>(
    level: &str,
    json: bool,
    colours: bool,
    writer: W,
) -> Result<impl Subscriber + use<W>, Error>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = if json {
        lines.json().flatten_event(true).with_current_span(false).boxed()
    } else {
        lines.with_ansi(colours).boxed()
    };
    Ok(tracing_subscriber::registry().with(EnvFilter::try_new(level)?).with(lines))
}
