//! The form in which a tenant's readers see an event's place in the order of all events: enough to resume there, and nothing
//! to count. Places number the events of all tenants, so two plain places would reveal how much the other tenants do.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use entity::TenantId;

/// Length of the key in bytes.
pub(super) const KEY_BYTES: usize = 32;

/// Length in bytes of the salt that lets two ids of the same place differ.
const SALT_BYTES: usize = 8;

/// Seals places, each for one tenant. Any process with the same audit key can open them, also after a restart.
#[derive(Clone)]
pub(super) struct Places(Arc<LessSafeKey>);

impl Places {
    pub(super) fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(Arc::new(LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, key).expect("the key has the right length"))))
    }

    /// Returns an event's id: always the same for the same event.
    pub(super) fn of_event(&self, tenant: TenantId, place: i64) -> String {
        self.seal(tenant, place, [0; SALT_BYTES])
    }

    /// Returns the id that a reader begins with, at the current end of all tenants' events. It differs at each call: two
    /// equal ids would tell a reader that no tenant did anything in between.
    pub(super) fn of_beginning(&self, tenant: TenantId, place: i64) -> String {
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).expect("the system has random bytes");
        self.seal(tenant, place, salt)
    }

    /// Returns the place behind an id issued to this tenant; `None` for any other text.
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

/// Returns the same nonce for all. GCM-SIV (RFC 8452) tolerates that: it reveals only whether two plaintexts are equal.
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
                // The length is the same for every place, so it reveals nothing.
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
