//! The chains that tie a session's events together, and all that operators did: whoever has no key cannot change, remove
//! or insert one unseen.
//!
//! Each event makes a new head of the head before it and of itself, by HMAC-SHA-256 under the server's key. The head
//! stands on the session's row, or for what operators did in `operator_chain`, where the same UPDATE that counts the event
//! moves it on; the event's own row keeps a digest of it, from which no earlier head can be had back, so that the last
//! events cannot be cut off either.

use std::fmt;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::{digest, hmac};
use chrono::{DateTime, Utc};
use entity::upload_session::{FailureReason, Status};
use entity::{ActorKind, SessionId, TenantId, operator_action, pruned_places, upload_tombstone};
use serde_json::{Map, Value, json};

use super::place::{KEY_BYTES, Places};
use crate::session::state;

/// Bytes of a head, of a MAC, and of the seed of a signing key.
pub const LINK_BYTES: usize = 32;

/// What is made of the server's audit key.
#[derive(Clone)]
pub struct Keys {
    chain: hmac::Key,
    receipt_seed: [u8; LINK_BYTES],
    places: Places,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// What an event says; with the place that it has in its session, all of its row but the MAC.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    pub event: &'a str,
    pub from: Option<Status>,
    pub to: Option<Status>,
    /// A token's `sub`, `system`, or `cli` for a command.
    pub actor: &'a str,
    /// `None` in events of before there were kinds.
    pub actor_kind: Option<ActorKind>,
    pub reason: Option<FailureReason>,
    /// A JSON object of texts, whole numbers and booleans: what other numbers look like in JSON is not one thing.
    pub details: Value,
    pub at: DateTime<Utc>,
}

/// What an event adds to its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// For the session's row, or that of the operators' chain.
    pub head: Vec<u8>,
    /// For the event's, or the action's.
    pub mac: Vec<u8>,
}

struct Seed;

impl KeyType for Seed {
    fn len(&self) -> usize {
        LINK_BYTES
    }
}

impl Keys {
    /// Derives the keys by HKDF (RFC 5869), one for each use. The secret has 32 bytes or more.
    pub fn new(secret: &str) -> Self {
        let key = Salt::new(HKDF_SHA256, b"quaymaster audit v1").extract(secret.as_bytes());
        let chain = key.expand(&[b"event chain"], hmac::HMAC_SHA256).expect("32 bytes are few").into();
        let mut receipt_seed = [0; LINK_BYTES];
        let seed = key.expand(&[b"receipt signature"], Seed).expect("32 bytes are few");
        seed.fill(&mut receipt_seed).expect("it has the length that was asked for");
        let mut place_key = [0; KEY_BYTES];
        let seed = key.expand(&[b"places of live events"], Seed).expect("32 bytes are few");
        seed.fill(&mut place_key).expect("it has the length that was asked for");
        Self { chain, receipt_seed, places: Places::new(&place_key) }
    }

    /// Of the key pair that signs receipts.
    pub fn receipt_seed(&self) -> &[u8; LINK_BYTES] {
        &self.receipt_seed
    }

    /// The id of the event at this place, for the tenant's readers: opaque, and good with every process that has the key.
    pub fn event_id(&self, tenant: TenantId, place: i64) -> String {
        self.places.of_event(tenant, place)
    }

    /// An id for a reader that begins after this place and has seen no event yet; another one each time.
    pub fn beginning_id(&self, tenant: TenantId, place: i64) -> String {
        self.places.of_beginning(tenant, place)
    }

    /// The place that an id of this tenant's stands for; `None` for any other text.
    pub fn place(&self, tenant: TenantId, id: &str) -> Option<i64> {
        self.places.open(tenant, id)
    }

    /// The head of a session that has no event yet.
    pub fn genesis(&self, tenant: TenantId, session: SessionId) -> Vec<u8> {
        let mut context = self.context(b"genesis");
        context.update(tenant.0.as_bytes());
        context.update(session.0.as_bytes());
        context.sign().as_ref().to_vec()
    }

    /// The link that event number `seq` adds to a chain that ends in `head`.
    pub fn link(&self, head: &[u8], tenant: TenantId, session: SessionId, seq: i32, entry: &Entry<'_>) -> Link {
        let facts = json!([
            tenant,
            session,
            seq,
            entry.at.timestamp_micros(),
            entry.event,
            entry.from.map(state::name),
            entry.to.map(state::name),
            entry.actor,
            entry.reason.map(state::reason_name),
            canonical(&entry.details),
        ]);
        self.after(b"event", head, with_kind(facts, entry.actor_kind))
    }

    /// The link that an operator's action adds to the chain of all of them, which ends in `head`, and is empty before the
    /// first one. Of all of the row but the MAC.
    pub fn action(&self, head: &[u8], row: &operator_action::Model) -> Link {
        let facts =
            json!([row.seq, row.at.timestamp_micros(), row.actor, row.action, row.tenant_id, canonical(&row.details),]);
        self.after(b"operator action", head, with_kind(facts, row.actor_kind))
    }

    fn after(&self, what: &[u8], head: &[u8], facts: Value) -> Link {
        let mut context = self.context(what);
        context.update(head);
        context.update(facts.to_string().as_bytes());
        let head = context.sign().as_ref().to_vec();
        let mac = mac_of(&head);
        Link { head, mac }
    }

    /// A MAC over facts that stand alone, such as those of a tombstone. `what` keeps kinds of facts apart.
    pub fn seal(&self, what: &str, facts: &Value) -> Vec<u8> {
        let mut context = self.context(what.as_bytes());
        context.update(canonical(facts).to_string().as_bytes());
        context.sign().as_ref().to_vec()
    }

    /// The MAC of what is left of a deleted session: of all of its row but the MAC itself.
    pub fn tombstone(&self, row: &upload_tombstone::Model) -> Vec<u8> {
        let facts = json!([
            row.tenant_id,
            row.upload_session_id,
            state::name(row.status),
            row.event_seq,
            hex::encode(&row.chain_head),
            row.positions,
            row.deleted_at.timestamp_micros(),
        ]);
        self.seal("tombstone", &facts)
    }

    /// The MAC of a block of pruned places.
    pub fn pruned_places(&self, row: &pruned_places::Model) -> Vec<u8> {
        self.seal("pruned places", &json!([row.block, hex::encode(&row.places)]))
    }

    fn context(&self, what: &[u8]) -> hmac::Context {
        let mut context = hmac::Context::with_key(&self.chain);
        context.update(what);
        context.update(&[0]);
        context
    }
}

/// What an event's row keeps of the head that it made.
pub fn mac_of(head: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, head).as_ref().to_vec()
}

/// The facts with the actor's kind as the last one; those of before there were kinds are one fewer, and stay as they were.
fn with_kind(mut facts: Value, kind: Option<ActorKind>) -> Value {
    if let (Value::Array(facts), Some(kind)) = (&mut facts, kind) {
        facts.push(json!(kind.name()));
    }
    facts
}

/// The same value with the members of its objects in order of their names.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut names: Vec<_> = members.keys().collect();
            names.sort_unstable();
            let members = names.into_iter().map(|name| (name.clone(), canonical(&members[name])));
            Value::Object(members.collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn entry(details: Value) -> Entry<'static> {
        let at = DateTime::from_timestamp_micros(1).unwrap();
        let actor_kind = Some(ActorKind::User);
        let to = Some(Status::Uploading);
        Entry { event: "open", from: None, to, actor: "ann", actor_kind, reason: None, details, at }
    }

    #[test]
    fn a_link_depends_on_every_fact_and_on_the_key() {
        let (keys, tenant, session) = (Keys::new("one"), TenantId::new(), SessionId::new());
        let head = keys.genesis(tenant, session);
        let of = |keys: &Keys, head: &[u8], seq, entry: Entry<'_>| keys.link(head, tenant, session, seq, &entry).mac;
        let base = of(&keys, &head, 1, entry(json!({})));
        let at = DateTime::from_timestamp_micros(2).unwrap();
        for other in [
            of(&Keys::new("two"), &head, 1, entry(json!({}))),
            of(&keys, &[0; 32], 1, entry(json!({}))),
            of(&keys, &head, 2, entry(json!({}))),
            of(&keys, &head, 1, entry(json!({ "a": 1 }))),
            of(&keys, &head, 1, Entry { event: "fail", ..entry(json!({})) }),
            of(&keys, &head, 1, Entry { from: Some(Status::Initiating), ..entry(json!({})) }),
            of(&keys, &head, 1, Entry { to: None, ..entry(json!({})) }),
            of(&keys, &head, 1, Entry { actor: "bob", ..entry(json!({})) }),
            of(&keys, &head, 1, Entry { actor_kind: Some(ActorKind::System), ..entry(json!({})) }),
            of(&keys, &head, 1, Entry { actor_kind: None, ..entry(json!({})) }),
            of(&keys, &head, 1, Entry { reason: Some(FailureReason::Expired), ..entry(json!({})) }),
            of(&keys, &head, 1, Entry { at, ..entry(json!({})) }),
            keys.link(&head, TenantId::new(), session, 1, &entry(json!({}))).mac,
            keys.link(&head, tenant, SessionId::new(), 1, &entry(json!({}))).mac,
        ] {
            assert_ne!(base, other);
        }
        assert_eq!(base, of(&keys, &head, 1, entry(json!({}))));
    }

    #[test]
    fn the_order_of_members_does_not_matter() {
        let keys = Keys::new("one");
        let (one, other): (Value, Value) =
            (serde_json::from_str(r#"{"a":{"x":1,"y":2},"b":3}"#).unwrap(), json!({ "b": 3, "a": { "y": 2, "x": 1 } }));
        assert_eq!(keys.seal("t", &one), keys.seal("t", &other));
        assert_ne!(keys.seal("t", &one), keys.seal("u", &one));
    }

    /// Computed with other tools, of rows as they were before there were kinds: these must be verified for good.
    #[test]
    fn what_was_recorded_before_there_were_kinds_has_the_links_of_then() {
        let keys = Keys::new("a key of a server of the version before");
        let tenant: TenantId = "01890000-0000-7000-8000-000000000001".parse().unwrap();
        let session: SessionId = "01890000-0000-7000-8000-000000000002".parse().unwrap();
        let old = Entry { actor: "system", actor_kind: None, ..entry(json!({})) };
        let link = keys.link(&keys.genesis(tenant, session), tenant, session, 1, &old);
        assert_eq!(hex::encode(link.mac), "0aa9f4f35d7eeabd2a70015f44496e491032468d3d33040c32f7c59131a86770");
        let action = operator_action::Model {
            seq: 1,
            at: DateTime::from_timestamp_micros(1).unwrap(),
            actor: "cli".to_owned(),
            actor_kind: None,
            action: "job.drop".to_owned(),
            tenant_id: None,
            details: json!({}),
            mac: vec![],
        };
        assert_eq!(
            hex::encode(keys.action(&[], &action).mac),
            "a8e3a973ec4bae1cad6653c58bfca6f7ac57e3c16e7201b30663efc28667428e"
        );
        let of_kind = |kind| keys.action(&[], &operator_action::Model { actor_kind: kind, ..action.clone() }).mac;
        assert_ne!(of_kind(Some(ActorKind::Command)), of_kind(None));
        assert_ne!(of_kind(Some(ActorKind::Command)), of_kind(Some(ActorKind::Operator)));
    }
}
