//! Limits the bytes of answers that are being made or wait for their clients to read them: in total, and for each tenant. A
//! client that asks for much and does not read it delays only its own tenant. The bytes of request bodies that are arriving
//! or wait to be parsed are limited in the same way.

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

use super::door::Door;
use super::heavy_work::to_json;
use super::problem::{CONTENT_TYPE, Problem};
use crate::caller::{Admin, Permission};
use crate::token::Identity;
use crate::turns::Party;

/// Answers and bodies of up to this many bytes are not counted: a connection costs as much without them.
const SMALL: usize = 16 << 10;

/// How long anything waits for room. A client that reads its answers is done by then.
const PATIENCE: Duration = Duration::from_secs(3);

/// What one permit of a semaphore stands for, in bytes.
const UNIT: usize = 1 << 10;

/// The room of this process for answers, or for bodies.
pub(super) struct InFlight {
    all: Arc<Semaphore>,
    all_units: usize,
    share_units: usize,
    shares: Mutex<HashMap<ShareOwner, Arc<Semaphore>>>,
}

/// A party that has its own share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ShareOwner {
    Tenant(TenantId),
    Operators,
    /// All requests without a token that was accepted.
    Strangers,
}

impl ShareOwner {
    /// Returns the sender of a request that has been answered.
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

impl From<&Admin> for ShareOwner {
    fn from(admin: &Admin) -> Self {
        match admin {
            Admin::Operator(_) => Self::Operators,
            Admin::Member(member) => Self::Tenant(member.tenant),
        }
    }
}

impl From<ShareOwner> for Party {
    fn from(owner: ShareOwner) -> Self {
        match owner {
            ShareOwner::Tenant(tenant) => Some(tenant),
            ShareOwner::Operators | ShareOwner::Strangers => None,
        }
    }
}

/// Reserved room, until it is dropped: for a body, once that is parsed; for an answer, once its client has taken it or the
/// answer is dropped.
#[derive(Debug)]
pub(super) struct Room {
    all: OwnedSemaphorePermit,
    share: OwnedSemaphorePermit,
}

impl InFlight {
    /// Room for `all_bytes` in total, and for `share_bytes` of one asker.
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

    /// Waits for room for an answer of at most `bytes`, before it is made. An answer that is larger than the share takes all
    /// of the share.
    ///
    /// # Errors
    /// 429 if there is no room within three seconds.
    pub(super) async fn reserve(&self, owner: ShareOwner, bytes: usize) -> Result<Room, Problem> {
        self.room(owner, bytes).await.ok_or_else(|| Problem::no_room(PATIENCE))
    }

    /// Waits for room for a body of at most `bytes`, before it is read. A small body, as most are, needs no room.
    ///
    /// # Errors
    /// 429 if there is no room within three seconds.
    pub(super) async fn reserve_for_body(&self, owner: ShareOwner, bytes: usize) -> Result<Option<Room>, Problem> {
        if bytes <= SMALL {
            return Ok(None);
        }
        self.room(owner, bytes).await.ok_or_else(|| Problem::no_turn(PATIENCE)).map(Some)
    }

    async fn room(&self, owner: ShareOwner, bytes: usize) -> Option<Room> {
        let (units, share) = (self.units(bytes), self.share(owner));
        let taken = async {
            let share = share.acquire_many_owned(units).await?;
            Ok::<_, tokio::sync::AcquireError>(Room {
                all: Arc::clone(&self.all).acquire_many_owned(units).await?,
                share,
            })
        };
        tokio::time::timeout(PATIENCE, taken).await.ok()?.ok()
    }

    /// Takes room for an answer that has been made already, without waiting.
    fn reserve_now(&self, owner: ShareOwner, bytes: usize) -> Option<Room> {
        let units = self.units(bytes);
        let share = self.share(owner).try_acquire_many_owned(units).ok()?;
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

    fn share(&self, owner: ShareOwner) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(&owner) {
            return Arc::clone(share);
        }
        // Shares that only this map holds are unused.
        shares.retain(|_, share| Arc::strong_count(share) > 1);
        let share = Arc::new(Semaphore::new(self.share_units));
        shares.insert(owner, Arc::clone(&share));
        share
    }
}

impl Room {
    /// Gives back the room that exceeds `bytes`.
    pub(super) fn shrink(&mut self, bytes: usize) {
        for permit in [&mut self.all, &mut self.share] {
            drop(permit.split(permit.num_permits().saturating_sub(bytes.div_ceil(UNIT))));
        }
    }

    /// Makes a JSON answer that holds this room.
    pub(super) fn json(self, status: StatusCode, view: &impl Serialize) -> HttpResponse {
        self.write(status, view).into()
    }

    /// Writes a JSON answer that becomes an [`HttpResponse`] later: only the thread that sends one can hold it.
    pub(super) fn write(mut self, status: StatusCode, view: &impl Serialize) -> Written {
        let json = to_json(view).expect("texts, ids and numbers are JSON");
        self.shrink(json.len());
        Written { status, slices: Slices { bytes: json.into(), _room: self } }
    }

    /// Makes a JSON answer that ends in a list whose items are made while the client reads. `head` is an object with at
    /// least one member; its members come before the list.
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
            // Keeps the room until the items are dropped.
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

/// A complete body that actix-http takes in slices, instead of copying all of it.
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

/// Takes room for large answers for which none was reserved: `App::wrap(from_fn(bound))`, around everything that makes
/// bodies.
pub(super) async fn bound(
    req: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let response = next.call(req).await?;
    let owner = ShareOwner::who_sent(response.request());
    let (request, response) = response.into_parts();
    let reserved = response.error().and_then(|error| error.as_error::<Problem>()).and_then(Problem::take_room);
    let (mut response, body) = response.into_parts();
    let body = body.boxed();
    if body.size() == BodySize::None {
        // As empty bytes it would have a length, which need not be the one that the answer to a HEAD states.
        return Ok(ServiceResponse::new(request, response.set_body(body)));
    }
    let body = match body.try_into_bytes() {
        Ok(bytes) if bytes.len() > SMALL => {
            match reserved.or_else(|| Door::of(&request).in_flight.reserve_now(owner, bytes.len())) {
                Some(mut room) => {
                    room.shrink(bytes.len());
                    BoxBody::new(Slices { bytes, _room: room })
                }
                None => {
                    tracing::warn!(
                        ?owner,
                        bytes = bytes.len(),
                        "an answer was refused: too many answers are still unread"
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
