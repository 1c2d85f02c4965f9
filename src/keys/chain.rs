//! The hash chains over a session's events and over the operators' actions. Without the key, nobody can change, remove or
//! insert an entry unnoticed.
//!
//! Each event computes a new head from the head before it and from its own content, with HMAC-SHA-256 under the server's
//! key. The head is stored on the session's row, or in `operator_chain` for operators' actions; the UPDATE that counts the
//! event also replaces the head. The event's own row keeps only a digest of its head, from which the head cannot be
//! recovered. So the last events cannot be cut off either.

use aws_lc_rs::{digest, hmac};
use chrono::{DateTime, Utc};
use entity::upload_session::{FailureReason, Status};
use entity::{ActorKind, SessionId, TenantId, operator_action, pruned_places, upload_tombstone};
use serde_json::{Map, Value, json};

use super::Keys;

/// The content of an event. The MAC covers it, with the tenant, the session and the event's number, but not `position`.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    pub event: &'a str,
    pub from: Option<Status>,
    pub to: Option<Status>,
    /// A token's `sub`, `system`, or `cli` for a command.
    pub actor: &'a str,
    /// `None` in events recorded before actor kinds existed.
    pub actor_kind: Option<ActorKind>,
    pub reason: Option<FailureReason>,
    /// A JSON object of strings, integers and booleans. Other numbers are excluded: their JSON text is not unique.
    pub details: Value,
    pub at: DateTime<Utc>,
}

/// The new head and the MAC that one entry adds to its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Stored on the session's row, or on the row of the operators' chain.
    pub head: Vec<u8>,
    /// Stored on the event's row, or on the action's.
    pub mac: Vec<u8>,
}

impl Keys {
    /// Returns the head of a session that has no event yet.
    pub fn genesis(&self, tenant: TenantId, session: SessionId) -> Vec<u8> {
        let mut context = self.context(b"genesis");
        context.update(tenant.0.as_bytes());
        context.update(session.0.as_bytes());
        context.sign().as_ref().to_vec()
    }

    /// Returns the link that event number `seq` adds to a chain that ends in `head`.
    pub fn link(&self, head: &[u8], tenant: TenantId, session: SessionId, seq: i32, entry: &Entry<'_>) -> Link {
        let facts = json!([
            tenant,
            session,
            seq,
            entry.at.timestamp_micros(),
            entry.event,
            entry.from.map(Status::name),
            entry.to.map(Status::name),
            entry.actor,
            entry.reason.map(FailureReason::name),
            canonical(&entry.details),
        ]);
        self.after(b"event", head, with_kind(facts, entry.actor_kind))
    }

    /// Returns the link that an operator's action adds to the operators' chain, which ends in `head`; `head` is empty
    /// before the first action. Covers the whole row except the MAC.
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

    /// Returns a MAC over facts outside of any chain, such as those of a tombstone. `what` keeps kinds of facts apart.
    pub fn seal(&self, what: &str, facts: &Value) -> Vec<u8> {
        let mut context = self.context(what.as_bytes());
        context.update(canonical(facts).to_string().as_bytes());
        context.sign().as_ref().to_vec()
    }

    /// Returns the MAC of a deleted session's tombstone. Covers the whole row except the MAC.
    pub fn tombstone(&self, row: &upload_tombstone::Model) -> Vec<u8> {
        let facts = json!([
            row.tenant_id,
            row.upload_session_id,
            row.status.name(),
            row.event_seq,
            hex::encode(&row.chain_head),
            row.positions,
            row.deleted_at.timestamp_micros(),
        ]);
        self.seal("tombstone", &facts)
    }

    /// Returns the MAC of a block of pruned places.
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

/// Returns the digest of a head that is stored as the event's MAC.
pub fn mac_of(head: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, head).as_ref().to_vec()
}

/// Appends the actor's kind to the facts. Entries recorded before kinds existed have no such fact, so their MACs stay valid.
fn with_kind(mut facts: Value, kind: Option<ActorKind>) -> Value {
    if let (Value::Array(facts), Some(kind)) = (&mut facts, kind) {
        facts.push(json!(kind.name()));
    }
    facts
}

/// Returns the same value with the members of each object sorted by name.
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

    /// The expected values were computed with other tools, from rows written before kinds existed. Such rows must stay
    /// verifiable.
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
