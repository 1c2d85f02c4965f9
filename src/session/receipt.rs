//! Receipts: signed statements of who uploaded what. They can be verified later without this server.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, SecondsFormat, Utc};
use entity::SessionId;
use entity::upload_session::{FailureReason, Status};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::instrument;

use super::activity::refusal;
use super::find;
use crate::asset;
use crate::caller::Caller;
use crate::engine::Engine;
use crate::error::{Attempt, Result};
use crate::event;
use crate::keys::{Keys, mac_of};

/// The `typ` of a receipt, so that it is never mistaken for a token.
const TYPE: &str = "quaymaster-receipt+jws";

/// A receipt and its signature.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// The signed content, readable: a JSON object.
    pub claims: Value,
    /// The same as a JWS in compact form (RFC 7515, section 7.1), signed with EdDSA.
    pub jws: String,
}

/// Returns the receipt of a session that has ended.
///
/// # Errors
/// [`Error::NotFound`] if the caller does not see the session, [`Error::IllegalTransition`] if it has not ended yet.
#[instrument(name = "session.receipt", skip_all, fields(session.id = %id, tenant.id = %caller.tenant))]
pub async fn receipt(engine: &Engine, caller: &Caller, id: SessionId) -> Result<Receipt> {
    let session = find(engine, caller, id).await?;
    if !session.status.is_terminal() {
        return Err(refusal(&session, Attempt::Receipt));
    }
    let events =
        event::rows::of_session(&engine.db.conn().of(session.tenant_id), session.tenant_id, session.id).await?;
    let opened = events.iter().find(|event| event.to_status == Some(Status::Uploading)).map(|event| event.at);
    let asset = match session.status {
        Status::Completed => {
            asset::rows::find(&engine.db.conn().of(session.tenant_id), session.tenant_id, session.asset_id).await?
        }
        Status::Initiating | Status::Uploading | Status::Failed | Status::Cancelled => None,
    };
    let claims = json!({
        "iss": "quaymaster",
        "issued_at": time(engine.clock.now()),
        "upload_session_id": session.id,
        "tenant_id": session.tenant_id,
        "brand_id": session.brand_id,
        "created_by": session.created_by,
        "client_reference": session.client_reference,
        "batch_reference": session.batch_reference,
        "file_name": session.file_name,
        "file_size": session.file_size,
        "mime_type": session.mime_type,
        "status": session.status.name(),
        "failure_reason": session.failure_reason.map(FailureReason::name),
        "asset_id": asset.as_ref().map(|asset| asset.id),
        "etag": asset.as_ref().map(|asset| asset.etag.as_str()),
        "checksum_sha256": asset.as_ref().map_or(&session.checksum_sha256, |asset| &asset.checksum_sha256),
        "checksum_verified": asset.as_ref().is_some_and(|asset| asset.checksum_verified),
        "created_at": time(session.created_at),
        "opened_at": opened.map(time),
        "completed_at": session.completed_at.map(time),
        "failed_at": session.failed_at.map(time),
        "cancelled_at": session.cancelled_at.map(time),
        "events": session.event_seq,
        // From the session's row and not from the last event, so that both values are of one moment.
        "chain_mac": hex::encode(mac_of(&session.chain_head)),
    });
    let jws = Signer::new(&engine.keys).sign(&claims);
    Ok(Receipt { claims, jws })
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

struct Signer {
    pair: Ed25519KeyPair,
}

impl Signer {
    fn new(keys: &Keys) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(keys.receipt_seed()).expect("32 bytes are a seed");
        Self { pair }
    }

    fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": "EdDSA", "typ": TYPE, "kid": self.public().kid });
        let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.pair.sign(message.as_bytes());
        format!("{message}.{}", encode(signature.as_ref()))
    }

    fn public(&self) -> PublicKey {
        PublicKey::new(encode(self.pair.public_key().as_ref()))
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key that verifies receipts: a JSON Web Key (RFC 8037, section 2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    pub kty: String,
    pub crv: String,
    pub x: String,
    /// The key's thumbprint (RFC 7638).
    pub kid: String,
    #[serde(default)]
    pub alg: String,
    #[serde(default, rename = "use")]
    pub usage: String,
}

impl PublicKey {
    fn new(x: String) -> Self {
        let kid = thumbprint(&x);
        Self { kty: "OKP".into(), crv: "Ed25519".into(), x, kid, alg: "EdDSA".into(), usage: "sig".into() }
    }
}

/// Returns the digest of the members that RFC 8037 names, in their order and without spaces.
fn thumbprint(x: &str) -> String {
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":{}}}"#, Value::from(x));
    encode(digest::digest(&digest::SHA256, members.as_bytes()))
}

/// The public keys that verify this deployment's receipts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PublicKeys {
    pub keys: Vec<PublicKey>,
}

/// Returns the public keys that verify this deployment's receipts.
pub fn public_keys(keys: &Keys) -> PublicKeys {
    PublicKeys { keys: vec![Signer::new(keys).public()] }
}

/// Why a receipt is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptError {
    NoReceipt,
    UnknownKey,
    WrongSignature,
    /// The readable part differs from the signed one.
    Altered,
}

impl fmt::Display for ReceiptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoReceipt => "this is not a receipt: expected the server's JSON answer or a JWS in compact form",
            Self::UnknownKey => "the receipt is signed with a key that is not among those given",
            Self::WrongSignature => "the signature is wrong: the receipt was forged or changed",
            Self::Altered => "the readable receipt differs from the signed one: it was changed",
        })
    }
}

/// Verifies a receipt, given as the server's JSON answer or as its bare JWS, and returns its claims. Needs no connection.
///
/// # Errors
/// [`ReceiptError`].
pub fn verify_receipt(text: &str, keys: &PublicKeys) -> Result<Value, ReceiptError> {
    let text = text.trim();
    if !text.starts_with('{') {
        return verify_jws(text, keys);
    }
    let answer: Answer = serde_json::from_str(text).map_err(|_| ReceiptError::NoReceipt)?;
    let claims = verify_jws(&answer.jws, keys)?;
    if claims == answer.receipt { Ok(claims) } else { Err(ReceiptError::Altered) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    receipt: Value,
    jws: String,
}

fn verify_jws(jws: &str, keys: &PublicKeys) -> Result<Value, ReceiptError> {
    let (message, signature) = jws.rsplit_once('.').ok_or(ReceiptError::NoReceipt)?;
    let (header, claims) = message.split_once('.').ok_or(ReceiptError::NoReceipt)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| ReceiptError::NoReceipt);
    let header: Value = serde_json::from_slice(&decode(header)?).map_err(|_| ReceiptError::NoReceipt)?;
    if header["alg"] != "EdDSA" || header["typ"] != TYPE || header.get("crit").is_some() {
        return Err(ReceiptError::NoReceipt);
    }
    // A key's id is derived from the key, so that no other key can use it.
    let named = |key: &&PublicKey| header["kid"] == thumbprint(&key.x);
    let key = keys.keys.iter().filter(|key| key.kty == "OKP" && key.crv == "Ed25519").find(named);
    let x = decode(&key.ok_or(ReceiptError::UnknownKey)?.x).map_err(|_| ReceiptError::UnknownKey)?;
    let signature = decode(signature)?;
    UnparsedPublicKey::new(&ED25519, x)
        .verify(message.as_bytes(), &signature)
        .map_err(|_| ReceiptError::WrongSignature)?;
    serde_json::from_slice(&decode(claims)?).map_err(|_| ReceiptError::NoReceipt)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn claims() -> Value {
        json!({ "iss": "quaymaster", "file_name": "reel.mov", "file_size": 7 })
    }

    #[test]
    fn the_thumbprint_is_that_of_the_standard() {
        // RFC 8037, appendices A.2 and A.3.
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        assert_eq!(thumbprint(x), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_receipt_is_believed_as_it_was_signed_and_no_other_way() {
        let keys = Keys::new("one");
        let known = public_keys(&keys);
        let jws = Signer::new(&keys).sign(&claims());
        assert_eq!(verify_receipt(&jws, &known), Ok(claims()));
        let answer = json!({ "receipt": claims(), "jws": jws });
        assert_eq!(verify_receipt(&answer.to_string(), &known), Ok(claims()));

        assert_eq!(verify_receipt(&jws, &public_keys(&Keys::new("two"))), Err(ReceiptError::UnknownKey));
        let altered = json!({ "receipt": { "iss": "quaymaster" }, "jws": jws });
        assert_eq!(verify_receipt(&altered.to_string(), &known), Err(ReceiptError::Altered));
        for nothing in ["", "{}", "a.b.c", "x", r#"{"receipt":{},"jws":"x"}"#] {
            assert_eq!(verify_receipt(nothing, &known), Err(ReceiptError::NoReceipt), "{nothing:?}");
        }

        let parts: Vec<&str> = jws.split('.').collect();
        let other = encode(json!({ "iss": "quaymaster", "file_size": 8 }).to_string());
        assert_eq!(verify_receipt(&[parts[0], &other, parts[2]].join("."), &known), Err(ReceiptError::WrongSignature));
        // Under the id of our key, but signed with another key.
        let forger = Signer::new(&Keys::new("two"));
        let message = format!("{}.{other}", parts[0]);
        let forged = format!("{message}.{}", encode(forger.pair.sign(message.as_bytes())));
        assert_eq!(verify_receipt(&forged, &known), Err(ReceiptError::WrongSignature));
        // And with the other key listed under the id of ours.
        let named_alike = PublicKey { kid: known.keys[0].kid.clone(), ..forger.public() };
        assert_eq!(verify_receipt(&forged, &PublicKeys { keys: vec![named_alike] }), Err(ReceiptError::UnknownKey));
        for header in
            [json!({ "alg": "none" }), json!({ "alg": "HS256", "typ": TYPE }), json!({ "alg": "EdDSA", "typ": "JWT" })]
        {
            let jws = format!("{}.{}.{}", encode(header.to_string()), parts[1], parts[2]);
            assert_eq!(verify_receipt(&jws, &known), Err(ReceiptError::NoReceipt), "{header}");
        }
    }

    #[test]
    fn no_single_character_of_a_receipt_can_be_changed() {
        let keys = Keys::new("one");
        let known = public_keys(&keys);
        let jws = Signer::new(&keys).sign(&claims());
        for at in 0..jws.len() {
            let mut changed = jws.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(verify_receipt(&String::from_utf8(changed).unwrap(), &known).is_err(), "at {at}");
        }
    }
}
