use serde::Deserialize;

use super::{Complaints, Secret};

/// The key of the recorded history.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Chains events and signs receipts. With another key, earlier records cannot be verified.
    pub key: Option<Secret>,
}

impl Audit {
    pub(super) fn check(&self, complaints: &mut Complaints) {
        complaints.unless(self.key.as_ref().is_none_or(|key| key.expose().len() >= 32), || {
            "audit.key (AUDIT_KEY) is shorter than 32 bytes; `openssl rand -hex 32` makes a good one".into()
        });
    }
}
