//! What a tenant's readers are told of an event's place in the order of all: enough to come back to it, and nothing that
//! could be counted. Places are those of all tenants together; two that a reader sees would tell how much the others do.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use entity::TenantId;

/// Bytes of the key.
pub(super) const KEY_BYTES: usize = 32;

/// Bytes beside a place that set two ids of the same place apart.
const SALT_BYTES: usize = 8;

/// Seals places for one tenant each. Whoever has the same audit key opens them, another process and a later one too.
#[derive(Clone)]
pub(super) struct Places(Arc<LessSafeKey>);

impl Places {
    pub(super) fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(Arc::new(LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, key).expect("the key has the right length"))))
    }

    /// An event's id: always the same for the same event.
    pub(super) fn of_event(&self, tenant: TenantId, place: i64) -> String {
        self.seal(tenant, place, [0; SALT_BYTES])
    }

    /// The id that a reader begins with, at the end of what all tenants have done so far. Another one each time: from two
    /// that are the same a reader would know that nobody did anything in between.
    pub(super) fn of_beginning(&self, tenant: TenantId, place: i64) -> String {
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).expect("the system has random bytes");
        self.seal(tenant, place, salt)
    }

    /// The place of an id that this tenant was given; `None` for any other text.
    pub(super) fn open(&self, tenant: TenantId, id: &str) -> Option<i64> {
        let mut sealed = URL_SAFE_NO_PAD.decode(id).ok()?;
        let plain = self.0.open_in_place(nonce(), Aad::from(tenant.0.as_bytes()), &mut sealed).ok()?;
        let (place, _salt) = plain.split_first_chunk()?;
        Some(i64::from_be_bytes(*place))
    }

    fn seal(&self, tenant: TenantId, place: i64, salt: [u8; SALT_BYTES]) -> String {
        let mut bytes = place.to_be_bytes().to_vec();
        bytes.extend(salt);
        let sealed = self.0.seal_in_place_append_tag(nonce(), Aad::from(tenant.0.as_bytes()), &mut bytes);
        sealed.expect("sixteen bytes are not too many");
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

/// One for all: GCM-SIV (RFC 8452) is made for that, and tells of two texts only whether they are the same.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_its_own_tenant_to_the_place_and_nobody_else() {
        let (places, acme, globex) = (Places::new(&[7; KEY_BYTES]), TenantId::new(), TenantId::new());
        for place in [0, 1, 2, i64::MAX] {
            for id in [places.of_event(acme, place), places.of_beginning(acme, place)] {
                // As long for every place: its length tells nothing either.
                assert_eq!(id.len(), 43);
                assert_eq!(places.open(acme, &id), Some(place));
                assert_eq!(places.open(globex, &id), None);
                assert_eq!(Places::new(&[8; KEY_BYTES]).open(acme, &id), None);
                assert_eq!(Places::new(&[7; KEY_BYTES]).open(acme, &id), Some(place), "after a restart");
                let mut changed = id.into_bytes();
                changed[3] = if changed[3] == b'A' { b'B' } else { b'A' };
                assert_eq!(places.open(acme, &String::from_utf8_lossy(&changed)), None);
            }
        }
        for text in ["", "1", "x y", "AAAA", &"A".repeat(43), &"A".repeat(4_000)] {
            assert_eq!(places.open(acme, text), None, "{text:?}");
        }
        assert_eq!(places.of_event(acme, 7), places.of_event(acme, 7));
        assert_ne!(places.of_event(acme, 7), places.of_event(globex, 7));
        assert_ne!(places.of_beginning(acme, 7), places.of_beginning(acme, 7));
    }
}
