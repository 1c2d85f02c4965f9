//! `GET /app/events`: live events, by Server-Sent Events (HTML standard, section 9.2).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{self, ContentEncoding, HeaderName, HeaderValue};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse, body};
use chrono::{DateTime, Utc};
use entity::upload_session::Status;
use futures_util::stream::unfold;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use crate::caller::{Caller, Permission};
use crate::engine::Engine;
use crate::error::with_causes;
use crate::feed::{self, Interest, Placed, Stream, public_name};
use crate::http::caller::admit;
use crate::http::caller::authenticate;
use crate::http::door::Door;
use crate::http::framing::wants_head_only;
use crate::http::in_flight::ShareOwner;
use crate::http::problem::{Answer, FieldError, Problem};
use crate::http::query::Query;
use crate::http::rules::{self, typed};
use crate::input::Reference;
use crate::views::{StatusView, Time};

const LAST_EVENT_ID: &str = "Last-Event-ID";

/// Given instead of an id: resumes from the very first event.
const FROM_THE_FIRST: &[u8] = b"0";

/// How long a client waits before it reconnects, in milliseconds.
const RETRY_MS: u32 = 2_000;

#[derive(Debug, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsQuery {
    #[validate(custom(function = "rules::text::<Reference>"))]
    batch_reference: Option<String>,
    last_event_id: Option<String>,
}

/// The data of one event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LiveEvent)]
pub(crate) struct LiveEventView {
    upload_session_id: Uuid,
    brand_id: Uuid,
    /// The session's state after the event.
    status: StatusView,
    /// Null until COMPLETED.
    asset_id: Option<Uuid>,
    batch_reference: Option<String>,
    client_reference: Option<String>,
    at: Time,
}

impl From<&Placed> for LiveEventView {
    fn from(event: &Placed) -> Self {
        let status = event.to_status.unwrap_or(event.status);
        Self {
            upload_session_id: event.upload_session_id.0,
            brand_id: event.brand_id.0,
            status: status.into(),
            asset_id: (status == Status::Completed).then_some(event.asset_id.0),
            batch_reference: event.batch_reference.clone(),
            client_reference: event.client_reference.clone(),
            at: Time(event.at),
        }
    }
}

/// Streams live events of the sessions that the caller sees.
///
/// Server-Sent Events: `upload.initiated`, `upload.opened`, `upload.completed`, `upload.failed`, `upload.cancelled`,
/// `asset.ready`, `asset.failed`. `id` is opaque. Send it back as `Last-Event-ID` to resume after that event without a gap;
/// `0` resumes from the very first event. Without it, only new events are sent. The stream ends when the token expires,
/// when the server stops, or when the reader is too slow; then reconnect with the last id.
#[utoipa::path(
    get, path = "/app/events", tag = "uploads",
    params(
        ("Last-Event-ID" = Option<String>, Header, description = "Resume after this event; `0` resumes from the first event."),
        ("last_event_id" = Option<String>, Query, description = "The same, for clients that cannot set a header. The header takes precedence."),
        ("batch_reference" = Option<String>, Query, format = "reference"),
    ),
    responses(
        (status = 200, description = "An endless stream of events; the `data` of each is a LiveEvent", body = LiveEventView, content_type = "text/event-stream"),
        (status = 503, description = "`too-many-readers`, `database-unavailable`"),
    ),
    extensions(("x-permission" = json!("uploads.view"))),
)]
pub(crate) async fn stream(
    engine: Data<Engine>,
    door: Data<Door>,
    caller: Caller,
    request: HttpRequest,
    query: Query<EventsQuery>,
) -> Answer {
    admit(&engine, &caller, Permission::UploadsView).await?;
    let query = query.parse()?;
    let after = match last_event_id(&request) {
        Some(header) => Some(place_of(&engine, &caller, LAST_EVENT_ID, header)?),
        None => {
            query.last_event_id.map(|id| place_of(&engine, &caller, "?last_event_id", id.as_bytes())).transpose()?
        }
    };
    let expires_at = authenticate(&request).await?.expires_at;
    let tenant = caller.tenant;
    let batch_reference = typed("?batch_reference", query.batch_reference).map_err(Problem::invalid)?;
    let interest = Interest { caller, batch_reference, session: None };
    let mut answer = HttpResponse::Ok();
    answer
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((HeaderName::from_static("x-accel-buffering"), "no"))
        .insert_header(ContentEncoding::Identity);
    if wants_head_only(&request) {
        return Ok(answer.body(body::None::new()));
    }
    let events = feed::stream(&engine, interest, after).await?;
    let beginning = engine.keys.beginning_id(tenant, events.read());
    // The place to resume from, for a reader that disconnects before the first event.
    let first = Bytes::from(format!("retry: {RETRY_MS}\nid: {beginning}\n\n"));
    let owner = ShareOwner::Tenant(tenant);
    let reader = Reader { engine: engine.get_ref().clone(), door, owner, events, expires_at, first: Some(first) };
    Ok(answer.streaming(unfold(reader, |reader| Box::pin(reader.step()))))
}

/// Returns the `Last-Event-ID` header. An empty one counts as absent: a browser sends it if it has seen no id yet.
fn last_event_id(request: &HttpRequest) -> Option<&[u8]> {
    request.headers().get(LAST_EVENT_ID).map(HeaderValue::as_bytes).filter(|value| !value.is_empty())
}

/// Returns the place after which a reader wants to resume. Another tenant's id is refused like any other wrong text.
fn place_of(engine: &Engine, caller: &Caller, field: &str, id: &[u8]) -> Result<i64, Problem> {
    if id == FROM_THE_FIRST {
        return Ok(0);
    }
    let place = std::str::from_utf8(id).ok().and_then(|id| engine.keys.place(caller.tenant, id));
    place.ok_or_else(|| {
        Problem::invalid(vec![FieldError::new(field, "invalid-format", "must be the id of an event, or 0")])
    })
}

struct Reader {
    engine: Engine,
    door: Data<Door>,
    owner: ShareOwner,
    events: Stream,
    expires_at: DateTime<Utc>,
    first: Option<Bytes>,
}

impl Reader {
    /// Returns the next bytes for the client; `None` if the stream ends.
    async fn step(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if let Some(first) = self.first.take() {
            return Some((Ok(first), self));
        }
        let left = (self.expires_at - self.engine.clock.now()).to_std().ok()?;
        let heartbeat_at = Instant::now() + left.min(Duration::from_secs(self.engine.settings.feed.heartbeat_secs));
        while self.events.is_behind() && Instant::now() < heartbeat_at {
            self = self.read_on().await?;
        }
        let bytes = tokio::select! {
            biased;
            () = self.engine.hub.closed() => return None,
            event = self.events.next() => match event {
                Ok(event) => frame(&self.engine, &event?),
                Err(error) => {
                    tracing::warn!(error = with_causes(&error), "a stream of events ended");
                    return None;
                }
            },
            () = sleep_until(heartbeat_at) => Bytes::from_static(b":\n\n"),
        };
        Some((Ok(bytes), self))
    }

    /// Reads one page of the events that the reader missed; `None` if the stream ends.
    async fn read_on(mut self) -> Option<Self> {
        let mut events = self.events;
        let reading = self.door.heavy.verb(self.owner, async move {
            let read = events.read_on().await;
            (events, read)
        });
        let read = tokio::select! {
            biased;
            () = self.engine.hub.closed() => return None,
            read = reading => read,
        };
        // A client that reconnects resumes after the last event that it has.
        let error = match read {
            Ok((events, Ok(()))) => {
                self.events = events;
                return Some(self);
            }
            Ok((_, Err(error))) => with_causes(&error),
            Err(problem) => problem.to_string(),
        };
        tracing::warn!(error, "a stream of events ended");
        None
    }
}

fn frame(engine: &Engine, event: &Arc<Placed>) -> Bytes {
    let name = public_name(&event.event).unwrap_or("message");
    let data = serde_json::to_string(&LiveEventView::from(event.as_ref())).expect("texts and ids are JSON");
    let id = engine.keys.event_id(event.tenant_id, event.position);
    Bytes::from(format!("id: {id}\nevent: {name}\ndata: {data}\n\n"))
}
