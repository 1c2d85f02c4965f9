use entity::upload_tombstone;
use serde_json::json;

use super::Keys;
use crate::session::state;

/// The MAC that a tombstone must have: of all its other columns.
pub(crate) fn seal_of_tombstone(keys: &Keys, tombstone: &upload_tombstone::Model) -> Vec<u8> {
    let facts = json!({
        "tenant_id": tombstone.tenant_id,
        "upload_session_id": tombstone.upload_session_id,
        "status": state::name(tombstone.status),
        "event_seq": tombstone.event_seq,
        "chain_head": hex::encode(&tombstone.chain_head),
        "positions": tombstone.positions,
        "deleted_at": tombstone.deleted_at.timestamp_micros(),
    });
    keys.seal("tombstone", &facts)
}
