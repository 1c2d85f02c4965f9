//! What the server logs as a warning or an error, sorted by the story whose request it was about.
//!
//! All stories share one process and so one log; each names its requests by an id that only it uses.

use std::fmt::{Debug, Write};
use std::sync::{Mutex, Once};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

static LINES: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());
static START: Once = Once::new();

/// Listens from the first story on.
pub fn listen() {
    START.call_once(|| {
        let subscriber = tracing_subscriber::registry().with(Collector);
        tracing::subscriber::set_global_default(subscriber).expect("nobody else listens in a test");
    });
}

/// Request id and text of every warning and error so far whose request's id begins so; they are forgotten here.
pub fn take(prefix: &str) -> Vec<(String, String)> {
    let mut lines = LINES.lock().unwrap();
    let (mine, others) = lines.drain(..).partition(|(request, _)| request.starts_with(prefix));
    *lines = others;
    mine
}

struct Collector;

struct RequestId(String);

/// The fields of a span or event; `request.id` apart.
#[derive(Default)]
struct Fields {
    request: Option<String>,
    text: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "request.id" {
            self.request = Some(format!("{value:?}"));
        }
        let _ = write!(self.text, "{}={value:?} ", field.name()); // a String takes all
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collector {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.is_span() || *metadata.level() <= Level::WARN
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let (Some(request), Some(span)) = (fields.request, context.span(id)) {
            span.extensions_mut().insert(RequestId(request));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let request = context.event_scope(event).and_then(|mut scope| {
            scope.find_map(|span| span.extensions().get::<RequestId>().map(|request| request.0.clone()))
        });
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(request) = request {
            let line = format!("{} {}", event.metadata().level(), fields.text);
            LINES.lock().unwrap().push((request, line));
        }
    }
}
