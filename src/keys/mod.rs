//! The keys derived from the server's audit key, and what they authenticate: the chains of events and actions
//! (`chain.rs`), and the ids of live events (`place.rs`). Receipts are signed with a key of its own (`session/receipt.rs`).

mod chain;
mod place;

use std::fmt;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac;
use entity::TenantId;

pub use chain::{Entry, Link, mac_of};
use place::{KEY_BYTES, Places};

/// Length in bytes of a head, a MAC and the seed of a signing key.
pub const LINK_BYTES: usize = 32;

/// The keys derived from the server's audit key.
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

struct Seed;

impl KeyType for Seed {
    fn len(&self) -> usize {
        LINK_BYTES
    }
}

impl Keys {
    /// Derives one key for each use with HKDF (RFC 5869). `secret` should have at least 32 bytes; this is not checked here.
    pub fn new(secret: &str) -> Self {
        let key = Salt::new(HKDF_SHA256, b"quaymaster audit v1").extract(secret.as_bytes());
        let chain = key.expand(&[b"event chain"], hmac::HMAC_SHA256).expect("HKDF can output 32 bytes").into();
        let mut receipt_seed = [0; LINK_BYTES];
        let seed = key.expand(&[b"receipt signature"], Seed).expect("HKDF can output 32 bytes");
        seed.fill(&mut receipt_seed).expect("it has the requested length");
        let mut place_key = [0; KEY_BYTES];
        let seed = key.expand(&[b"places of live events"], Seed).expect("HKDF can output 32 bytes");
        seed.fill(&mut place_key).expect("it has the requested length");
        Self { chain, receipt_seed, places: Places::new(&place_key) }
    }

    /// Returns the seed of the key pair that signs receipts.
    pub fn receipt_seed(&self) -> &[u8; LINK_BYTES] {
        &self.receipt_seed
    }

    /// Returns the id of the event at this place, for the tenant's readers. It is opaque; every process with the same key
    /// can resolve it.
    pub fn event_id(&self, tenant: TenantId, place: i64) -> String {
        self.places.of_event(tenant, place)
    }

    /// Returns an id for a reader that begins after this place and has seen no event yet. It differs at each call.
    pub fn beginning_id(&self, tenant: TenantId, place: i64) -> String {
        self.places.of_beginning(tenant, place)
    }

    /// Returns the place behind an id issued to this tenant; `None` for any other text.
    pub fn place(&self, tenant: TenantId, id: &str) -> Option<i64> {
        self.places.open(tenant, id)
    }
}
