//! Whether a token is to be believed, and what it says.

use chrono::{DateTime, Utc};
use entity::{BrandId, TenantId};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::caller::{Brands, Caller, Permissions};
use crate::clock::Clock;
use crate::settings::{self, Secret};

/// What a token says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_id: Option<TenantId>,
    /// A list, or `"*"`.
    brand_ids: Value,
    permissions: Vec<String>,
    exp: i64,
}

impl Claims {
    pub fn new(
        user: String,
        tenant: Option<TenantId>,
        brands: &Brands,
        permissions: Vec<String>,
        exp: DateTime<Utc>,
    ) -> Self {
        let brand_ids = match brands {
            Brands::All => json!("*"),
            Brands::These(ids) => json!(ids),
        };
        Self { sub: user, tenant_id: tenant, brand_ids, permissions, exp: exp.timestamp() }
    }
}

/// A token, signed with HS256.
pub fn mint(secret: &Secret, claims: &Claims) -> String {
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).expect("claims are plain JSON")
}

#[derive(Clone)]
pub(super) struct Verifier {
    key: Option<DecodingKey>,
    leeway: i64,
    clock: Clock,
}

impl Verifier {
    pub(super) fn new(settings: &settings::Auth, clock: Clock) -> Result<Self, String> {
        let key = settings.jwt_secret.as_ref().map(|s| DecodingKey::from_secret(s.expose().as_bytes()));
        Ok(Self { key, leeway: i64::try_from(settings.leeway_secs).unwrap_or(60), clock })
    }

    pub(super) async fn verify(&self, token: &str) -> Result<Caller, String> {
        let key = self.key.as_ref().ok_or("no key")?;
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let claims: Claims =
            jsonwebtoken::decode(token, key, &validation).map_err(|_| "the token is not valid".to_owned())?.claims;
        if claims.exp + self.leeway <= self.clock.now().timestamp() {
            return Err("the token has expired".to_owned());
        }
        let brands = match claims.brand_ids {
            Value::String(all) if all == "*" => Brands::All,
            ids => Brands::These(serde_json::from_value::<Vec<BrandId>>(ids).map_err(|_| "brand_ids".to_owned())?),
        };
        Ok(Caller {
            tenant: claims.tenant_id.ok_or("the token names no tenant")?,
            user: claims.sub,
            brands,
            permissions: Permissions::parse(claims.permissions.iter().map(String::as_str)),
        })
    }
}
