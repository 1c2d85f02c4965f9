use chrono::{DateTime, Utc};
use entity::TenantId;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, json};

use crate::caller::Brands;
use crate::settings;

/// The contents of a new token.
pub struct Grant<'a> {
    pub user: &'a str,
    pub tenant: Option<TenantId>,
    pub brands: Brands,
    /// As in the claim; `*` grants all but `operator`.
    pub permissions: &'a [String],
    pub expires_at: DateTime<Utc>,
}

/// Makes an HS256 token, for the `token` command and for tests. Each claim has the name that the settings give it.
pub fn mint(settings: &settings::Auth, secret: &settings::Secret, grant: &Grant) -> String {
    let names = &settings.claims;
    let mut claims = Map::new();
    let mut say = |name: &str, value| drop(claims.insert(name.to_owned(), value));
    say(&names.sub, json!(grant.user));
    if let Some(tenant) = grant.tenant {
        say(&names.tenant_id, json!(tenant));
    }
    say(
        &names.brand_ids,
        match &grant.brands {
            Brands::All => json!("*"),
            Brands::These(ids) => json!(ids),
        },
    );
    say(&names.permissions, json!(grant.permissions));
    say("exp", json!(grant.expires_at.timestamp()));
    if let Some(issuer) = &settings.issuer {
        say("iss", json!(issuer));
    }
    if let Some(audience) = &settings.audience {
        say("aud", json!(audience));
    }
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).expect("texts and numbers are JSON, and HMAC takes any key")
}
