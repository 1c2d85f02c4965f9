//! Answers that are being made, or wait for their clients to take them, by their bytes: so many of all, and so many of one
//! tenant. Whoever asks for much and does not read it holds up nobody but itself. And bodies of requests that come, or wait
//! to be understood, in the same way.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::Bytes;
use actix_web::{Error, HttpMessage as _, HttpRequest, HttpResponse, ResponseError as _};
use entity::TenantId;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::auth::Identity;
use super::door::Door;
use super::problem::{CONTENT_TYPE, Problem};
use crate::caller::{Admin, Permission};
use crate::turns::Party;

/// Up to this many bytes are not counted: a connection costs as much without one.
const SMALL: usize = 16 << 10;

/// How long anything waits for room. A client that takes what it is sent is gone by then.
const PATIENCE: Duration = Duration::from_secs(3);

/// What one permit of a semaphore stands for, in bytes.
const UNIT: usize = 1 << 10;

/// The room of this process for answers, or for bodies.
pub(super) struct InFlight {
    all: Arc<Semaphore>,
    all_units: usize,
    share_units: usize,
    shares: Mutex<HashMap<Asker, Arc<Semaphore>>>,
}

/// Who has a share of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asker {
    Tenant(TenantId),
    Operators,
    /// All who have no token.
    Strangers,
}

impl Asker {
    /// Who sent a request that has been answered.
    fn who_sent(request: &HttpRequest) -> Self {
        request.extensions().get::<std::rc::Rc<Identity>>().map_or(Self::Strangers, |identity| Self::of(identity))
    }

    pub(super) fn of(identity: &Identity) -> Self {
        match identity.tenant {
            Some(tenant) if !identity.permissions.has(Permission::Operator) => Self::Tenant(tenant),
            Some(_) | None => Self::Operators,
        }
    }
}

impl From<&Admin> for Asker {
    fn from(admin: &Admin) -> Self {
        match admin {
            Admin::Operator(_) => Self::Operators,
            Admin::Member(member) => Self::Tenant(member.tenant),
        }
    }
}

impl From<Asker> for Party {
    fn from(asker: Asker) -> Self {
        match asker {
            Asker::Tenant(tenant) => Some(tenant),
            Asker::Operators | Asker::Strangers => None,
        }
    }
}

/// Taken from the room until it is dropped: with the body once that is understood, with the answer or when that has been
/// taken by its client.
#[derive(Debug)]
pub(super) struct Room {
    all: OwnedSemaphorePermit,
    share: OwnedSemaphorePermit,
}

impl InFlight {
    /// So many bytes of all, and so many of one asker.
    pub(super) fn new(all_bytes: usize, share_bytes: usize) -> Self {
        let units = |bytes: usize| (bytes / UNIT).min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        let all_units = units(all_bytes);
        Self {
            all: Arc::new(Semaphore::new(all_units)),
            all_units,
            share_units: units(share_bytes),
            shares: Mutex::default(),
        }
    }

    /// Waits for room for an answer of at most so many bytes, before it is made. One that is larger than the share takes
    /// all of the share.
    ///
    /// # Errors
    /// 429 where there is none in three seconds.
    pub(super) async fn reserve(&self, asker: Asker, bytes: usize) -> Result<Room, Problem> {
        self.room(asker, bytes).await.ok_or_else(|| Problem::no_room(PATIENCE))
    }

    /// The same for a body that may have so many bytes, before it is read. A small one, as most are, needs no room.
    ///
    /// # Errors
    /// 429 where there is none in three seconds.
    pub(super) async fn reserve_for_body(&self, asker: Asker, bytes: usize) -> Result<Option<Room>, Problem> {
        if bytes <= SMALL {
            return Ok(None);
        }
        self.room(asker, bytes).await.ok_or_else(|| Problem::no_turn(PATIENCE)).map(Some)
    }

    async fn room(&self, asker: Asker, bytes: usize) -> Option<Room> {
        let (units, share) = (self.units(bytes), self.share(asker));
        let taken = async {
            let share = share.acquire_many_owned(units).await?;
            Ok::<_, tokio::sync::AcquireError>(Room {
                all: Arc::clone(&self.all).acquire_many_owned(units).await?,
                share,
            })
        };
        tokio::time::timeout(PATIENCE, taken).await.ok()?.ok()
    }

    /// The same for an answer that has been made, and so must not wait.
    fn reserve_now(&self, asker: Asker, bytes: usize) -> Option<Room> {
        let units = self.units(bytes);
        let share = self.share(asker).try_acquire_many_owned(units).ok()?;
        let all = Arc::clone(&self.all).try_acquire_many_owned(units).ok()?;
        Some(Room { all, share })
    }

    fn units(&self, bytes: usize) -> u32 {
        if bytes <= SMALL {
            return 0;
        }
        let units = bytes.div_ceil(UNIT).min(self.share_units).min(self.all_units);
        u32::try_from(units).unwrap_or(u32::MAX)
    }

    fn share(&self, asker: Asker) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(&asker) {
            return Arc::clone(share);
        }
        // Those whom nobody holds are whole.
        shares.retain(|_, share| Arc::strong_count(share) > 1);
        let share = Arc::new(Semaphore::new(self.share_units));
        shares.insert(asker, Arc::clone(&share));
        share
    }
}

impl Room {
    /// Gives back what turned out not to be needed.
    pub(super) fn shrink(&mut self, bytes: usize) {
        for permit in [&mut self.all, &mut self.share] {
            drop(permit.split(permit.num_permits().saturating_sub(bytes.div_ceil(UNIT))));
        }
    }

    /// A JSON answer that has been made in this room.
    pub(super) fn json(self, status: StatusCode, view: &impl Serialize) -> HttpResponse {
        self.write(status, view).into()
    }

    /// The same before it is an answer, which only the thread that sends it can have.
    pub(super) fn write(mut self, status: StatusCode, view: &impl Serialize) -> Written {
        let json = serde_json::to_vec(view).expect("texts, ids and numbers are JSON");
        self.shrink(json.len());
        Written { status, slices: Slices { bytes: json.into(), _room: self } }
    }

    /// A JSON answer that ends in a list whose items are made while the client reads. `head` is what goes before them, as an
    /// object with at least one member.
    pub(super) fn json_list<T: Serialize>(
        self,
        head: &impl Serialize,
        name: &str,
        mut items: impl Iterator<Item = T> + 'static,
    ) -> HttpResponse {
        let mut chunk = serde_json::to_vec(head).expect("texts, ids and numbers are JSON");
        chunk.pop();
        chunk.extend_from_slice(format!(",\"{name}\":[").as_bytes());
        let mut first = true;
        let mut ended = false;
        let chunks = std::iter::from_fn(move || {
            // Goes with the items, not with the last chunk of them alone.
            let _ = &self;
            while !ended && chunk.len() < SMALL {
                match items.next() {
                    Some(item) => {
                        if !std::mem::replace(&mut first, false) {
                            chunk.push(b',');
                        }
                        serde_json::to_writer(&mut chunk, &item).expect("texts, ids and numbers are JSON");
                    }
                    None => {
                        chunk.extend_from_slice(b"]}");
                        ended = true;
                    }
                }
            }
            (!chunk.is_empty()).then(|| Ok::<_, Infallible>(Bytes::from(std::mem::take(&mut chunk))))
        });
        HttpResponse::Ok().content_type(mime::APPLICATION_JSON).streaming(stream::iter(chunks))
    }
}

/// See [`Room::write`].
pub(super) struct Written {
    status: StatusCode,
    slices: Slices,
}

impl From<Written> for HttpResponse {
    fn from(written: Written) -> Self {
        Self::build(written.status).content_type(mime::APPLICATION_JSON).body(written.slices)
    }
}

/// A whole body that actix-http takes a bit at a time, instead of as a copy of all of it.
struct Slices {
    bytes: Bytes,
    _room: Room,
}

impl MessageBody for Slices {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.bytes.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let most = self.bytes.len().min(SMALL);
        let slice = self.bytes.split_to(most);
        Poll::Ready((!slice.is_empty()).then_some(Ok(slice)))
    }
}

/// Counts large answers for which no room was reserved: `App::wrap(from_fn(bound))`, outside of all that makes bodies.
pub(super) async fn bound(
    req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let response = next.call(req).await?;
    let asker = Asker::who_sent(response.request());
    let (request, response) = response.into_parts();
    let reserved = response.error().and_then(|error| error.as_error::<Problem>()).and_then(Problem::take_room);
    let (mut response, body) = response.into_parts();
    let body = body.boxed();
    if body.size() == BodySize::None {
        // As empty bytes it would have a length, which the answer to a HEAD need not be.
        return Ok(ServiceResponse::new(request, response.set_body(body)));
    }
    let body = match body.try_into_bytes() {
        Ok(bytes) if bytes.len() > SMALL => {
            match reserved.or_else(|| Door::of(&request).in_flight.reserve_now(asker, bytes.len())) {
                Some(mut room) => {
                    room.shrink(bytes.len());
                    BoxBody::new(Slices { bytes, _room: room })
                }
                None => {
                    tracing::warn!(
                        ?asker,
                        bytes = bytes.len(),
                        "an answer found no room among those that nobody takes"
                    );
                    let problem = Problem::no_room(PATIENCE);
                    let id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
                    *response.status_mut() = problem.status_code();
                    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
                    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(PATIENCE.as_secs()));
                    BoxBody::new(problem.body(id.as_deref()))
                }
            }
        }
        Ok(bytes) => BoxBody::new(bytes),
        Err(body) => body,
    };
    Ok(ServiceResponse::new(request, response.set_body(body)))
}
