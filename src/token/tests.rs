#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer, rt, web};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use super::mint::*;
use super::verify::*;
use crate::caller::{Brands, Permission};
use crate::clock::Clock;
use crate::settings::{self, Secret, Settings};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const TENANT: &str = "01890000-0000-7000-8000-000000000001";
const BRAND: &str = "01890000-0000-7000-8000-000000000002";

fn block_on<F: Future>(future: F) -> F::Output {
    rt::System::new().block_on(future)
}

fn auth() -> settings::Auth {
    Settings::parse(None, []).unwrap().auth
}

fn with_secret() -> settings::Auth {
    settings::Auth { jwt_secret: Some(Secret::new(SECRET)), ..auth() }
}

fn claims() -> Value {
    json!({
        "sub": "user-7", "tenant_id": TENANT, "brand_ids": [BRAND], "permissions": ["uploads.create", "files/read"],
        "exp": Utc::now().timestamp() + 600,
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn token(header: Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn hmac(secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
    move |message| aws_lc_rs::hmac::sign(&key, message).as_ref().to_vec()
}

fn hs256(claims: &Value) -> String {
    token(json!({"alg": "HS256", "typ": "JWT"}), claims, hmac(SECRET.as_bytes()))
}

fn verify(settings: &settings::Auth, token: &str) -> Result<Identity, Rejection> {
    block_on(Verifier::new(settings, Clock::default()).unwrap().verify(token))
}

#[track_caller]
fn refused(settings: &settings::Auth, token: &str, word: &str) {
    match verify(settings, token) {
        Err(Rejection::Invalid(reason)) if reason.contains(word) => {}
        other => panic!("expected a refusal about {word:?}, found {other:?}"),
    }
}

#[test]
fn claims_become_an_identity() {
    let identity = verify(&with_secret(), &hs256(&claims())).unwrap();
    assert_eq!(identity.tenant.unwrap().to_string(), TENANT);
    assert_eq!(identity.user, "user-7");
    assert_eq!(identity.brands, Brands::These(vec![BRAND.parse().unwrap()]));
    assert!(identity.permissions.has(Permission::UploadsCreate) && !identity.permissions.has(Permission::UploadsView));

    let all = verify(&with_secret(), &hs256(&with("brand_ids", json!("*")))).unwrap();
    assert_eq!(all.brands, Brands::All);
    let mut operator = without("tenant_id");
    operator["permissions"] = json!(["operator"]);
    assert_eq!(verify(&with_secret(), &hs256(&operator)).unwrap().tenant, None);
}

#[test]
fn a_claim_that_is_missing_or_wrong_is_named() {
    let settings = with_secret();
    for name in ["sub", "tenant_id", "brand_ids", "permissions", "exp"] {
        refused(&settings, &hs256(&without(name)), name);
    }
    refused(&settings, &hs256(&with("sub", json!(""))), "sub");
    refused(&settings, &hs256(&with("sub", json!("x".repeat(129)))), "sub");
    refused(&settings, &hs256(&with("sub", json!("a\nb"))), "sub");
    refused(&settings, &hs256(&with("tenant_id", json!("acme"))), "tenant_id");
    for (name, value) in [
        ("sub", json!(7)),
        ("brand_ids", json!("all")),
        ("brand_ids", json!(["main"])),
        ("permissions", json!("*")),
        ("exp", json!("tomorrow")),
    ] {
        refused(&settings, &hs256(&with(name, value)), "wrong type");
    }
    assert_eq!(verify(&settings, &hs256(&with("sub", json!("ü".repeat(128))))).unwrap().user.chars().count(), 128);
}

#[test]
fn time_is_the_clocks_with_leeway() {
    let clock = Clock::default();
    let verifier = Verifier::new(&with_secret(), clock.clone()).unwrap();
    let mut claims = claims();
    let now = clock.now().timestamp();
    claims["exp"] = json!(now as f64 + 100.5);
    claims["nbf"] = json!(now + 50);
    let token = hs256(&claims);
    let verdict = || block_on(verifier.verify(&token));
    assert!(verdict().is_ok(), "nbf is within the leeway");
    clock.advance(TimeDelta::seconds(155));
    assert!(verdict().is_ok(), "exp is within the leeway");
    clock.advance(TimeDelta::seconds(10));
    assert_eq!(verdict().unwrap_err(), Rejection::Invalid("the token has expired"));
    clock.advance(TimeDelta::seconds(-180));
    assert_eq!(verdict().unwrap_err(), Rejection::Invalid("the token is not valid yet"));
}

#[test]
fn issuer_and_audience_count_where_they_are_set() {
    assert!(verify(&with_secret(), &hs256(&with("aud", json!("anybody")))).is_ok());
    let settings = settings::Auth { issuer: Some("https://id".into()), audience: Some("quay".into()), ..with_secret() };
    let mut claims = with("iss", json!("https://id"));
    for aud in [json!("quay"), json!(["other", "quay"])] {
        claims["aud"] = aud;
        assert!(verify(&settings, &hs256(&claims)).is_ok());
    }
    for aud in [json!("other"), json!([]), json!(["quays"])] {
        claims["aud"] = aud;
        refused(&settings, &hs256(&claims), "audience");
    }
    refused(&settings, &hs256(&without("aud")), "issuer");
    claims["iss"] = json!("https://evil");
    refused(&settings, &hs256(&claims), "issuer");
}

#[test]
fn nothing_but_the_right_signature_is_believed() {
    let settings = with_secret();
    let good = hs256(&claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    refused(&settings, &format!("{message}."), "not a signed JWT");
    refused(&settings, message, "not a signed JWT");
    refused(&settings, &format!("{good}.x"), "not a signed JWT");
    refused(&settings, "", "not a signed JWT");
    refused(&settings, &format!("{message}.{}", &signature[..20]), "signature");
    refused(&settings, &token(json!({"alg": "HS256"}), &claims(), hmac(b"another secret")), "signature");
    refused(&settings, &token(json!({"alg": "none"}), &claims(), |_| b"x".to_vec()), "algorithm");
    refused(&settings, &token(json!({"alg": "HS512"}), &claims(), hmac(SECRET.as_bytes())), "algorithm");
    refused(&settings, &token(json!({"alg": "RS256"}), &claims(), hmac(SECRET.as_bytes())), "algorithm");
    refused(&settings, &token(json!({"alg": "HS256", "crit": ["b64"]}), &claims(), hmac(SECRET.as_bytes())), "crit");

    // Claims of another token under this one's signature.
    let other = hs256(&with("sub", json!("admin")));
    let forged = format!("{}.{signature}", other.rsplit_once('.').unwrap().0);
    refused(&settings, &forged, "signature");
}

#[test]
fn a_minted_token_is_believed() {
    let settings = settings::Auth { issuer: Some("i".into()), audience: Some("a".into()), ..with_secret() };
    let grant = Grant {
        user: "ann",
        tenant: Some(TENANT.parse().unwrap()),
        brands: Brands::All,
        permissions: &["*".to_owned()],
        expires_at: Utc::now() + TimeDelta::hours(1),
    };
    let identity = verify(&settings, &mint(&settings, &Secret::new(SECRET), &grant)).unwrap();
    assert_eq!((identity.user.as_str(), identity.brands), ("ann", Brands::All));
    assert!(identity.permissions.has(Permission::AssetsView) && !identity.permissions.has(Permission::Operator));

    // Also with claims under other names.
    let settings = settings::Auth { claims: mapped(), ..settings };
    assert_eq!(verify(&settings, &mint(&settings, &Secret::new(SECRET), &grant)).unwrap().user, "ann");
}

/// The names of a provider that does not use the default claims.
fn mapped() -> settings::Claims {
    settings::Claims {
        sub: "email".into(),
        tenant_id: "https://example.com/tenant".into(),
        brand_ids: "app_metadata.brands".into(),
        permissions: "realm_access.roles".into(),
    }
}

#[test]
fn claims_are_where_the_settings_say() {
    let settings = settings::Auth { claims: mapped(), ..with_secret() };
    let theirs = json!({
        "sub": "auth0|17", "email": "ann@example.com", "https://example.com/tenant": TENANT,
        "app_metadata": {"brands": [BRAND], "tenant_id": "of no interest"},
        "realm_access": {"roles": ["uploads.view", "offline_access"]},
        "exp": Utc::now().timestamp() + 600,
    });
    let identity = verify(&settings, &hs256(&theirs)).unwrap();
    assert_eq!((identity.user.as_str(), identity.tenant.unwrap().to_string().as_str()), ("ann@example.com", TENANT));
    assert_eq!(identity.brands, Brands::These(vec![BRAND.parse().unwrap()]));
    assert!(identity.permissions.has(Permission::UploadsView) && !identity.permissions.has(Permission::UploadsCreate));
    // Then the default claims are ignored.
    refused(&settings, &hs256(&claims()), "no sub");
    let mut wrong = theirs.clone();
    wrong["realm_access"] = json!({"roles": "uploads.view"});
    refused(&settings, &hs256(&wrong), "wrong type");
    wrong["realm_access"] = json!("uploads.view");
    refused(&settings, &hs256(&wrong), "no permissions");
    wrong = theirs.clone();
    wrong["email"] = json!("system");
    refused(&settings, &hs256(&wrong), "own actors");
}

#[test]
fn nobody_bears_a_name_of_the_machines() {
    for name in ["system", "cli"] {
        refused(&with_secret(), &hs256(&with("sub", json!(name))), "own actors");
    }
    // The kind of an actor is recorded beside the name, so names that merely look alike deceive nobody.
    assert_eq!(verify(&with_secret(), &hs256(&with("sub", json!("System")))).unwrap().user, "System");
}

/// A key pair of one of the accepted kinds, as an identity provider has it.
enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Pair {
    fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    fn alg(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
            Self::Ed(_) => "EdDSA",
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    fn token(&self, kid: Option<&str>) -> String {
        let mut header = json!({"alg": self.alg()});
        if let Some(kid) = kid {
            header["kid"] = json!(kid);
        }
        token(header, &claims(), |message| self.sign(message))
    }

    fn pem(&self) -> String {
        let der: PublicKeyX509Der = match self {
            Self::Rsa(pair) => pair.public_key().as_der().unwrap(),
            Self::Ec(pair) => pair.public_key().as_der().unwrap(),
            Self::Ed(pair) => pair.public_key().as_der().unwrap(),
        };
        pem("PUBLIC KEY", der.as_ref())
    }

    fn jwk(&self, kid: &str) -> Value {
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rsa(pair) => {
                let public = pair.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                json!({"kty": "RSA", "kid": kid, "use": "sig", "n": part(n.big_endian_without_leading_zero()),
                    "e": part(e.big_endian_without_leading_zero())})
            }
            Self::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "alg": "ES256", "x": part(&point[1..33]), "y": part(&point[33..])})
            }
            Self::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": part(pair.public_key().as_ref())})
            }
        }
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn with_pem(pem: &str) -> (settings::Auth, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(pem.as_bytes()).unwrap();
    (settings::Auth { public_key_file: Some(file.path().to_owned()), ..auth() }, file)
}

#[test]
fn a_pem_key_decides_the_algorithm() {
    for pair in [Pair::rsa(), Pair::ec(), Pair::ed()] {
        let (settings, _file) = with_pem(&pair.pem());
        assert!(verify(&settings, &pair.token(Some("any"))).is_ok(), "{}", pair.alg());
        // The classic confusion: the public key, which everybody has, used as a secret.
        let forged = token(json!({"alg": "HS256"}), &claims(), hmac(pair.pem().as_bytes()));
        refused(&settings, &forged, "algorithm");
        let renamed =
            token(json!({"alg": if pair.alg() == "RS256" { "ES256" } else { "RS256" }}), &claims(), |m| pair.sign(m));
        refused(&settings, &renamed, "algorithm");
        // Both kinds of key together.
        let both = settings::Auth { jwt_secret: Some(Secret::new(SECRET)), ..settings };
        assert!(verify(&both, &pair.token(None)).is_ok() && verify(&both, &hs256(&claims())).is_ok());
        refused(&both, &forged, "signature");
    }
}

#[test]
fn a_key_file_that_cannot_be_used_stops_the_start() {
    let start = |pem: &str| {
        let (settings, _file) = with_pem(pem);
        Verifier::new(&settings, Clock::default()).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(start("no pem").contains("is not a public key"));
    let long = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let der: PublicKeyX509Der = long.public_key().as_der().unwrap();
    assert_eq!(start(&pem("PUBLIC KEY", der.as_ref())), "", "P-384 is for ES384");
    let longer = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap();
    let der: PublicKeyX509Der = longer.public_key().as_der().unwrap();
    assert!(start(&pem("PUBLIC KEY", der.as_ref())).contains("is not a public key"), "nothing is taken of P-521");
    assert!(start(&pem("PRIVATE KEY", b"x")).contains("private key"));
    let missing = settings::Auth { public_key_file: Some("/nonexistent/key.pem".into()), ..auth() };
    assert!(matches!(Verifier::new(&missing, Clock::default()), Err(StartError::File(..))));
    assert!(matches!(Verifier::new(&auth(), Clock::default()), Err(StartError::NoKey)));
}

#[test]
fn a_key_signs_by_the_algorithms_of_its_kind() {
    const SIGNING: [(&str, &'static dyn RsaEncoding); 6] = [
        ("RS256", &RSA_PKCS1_SHA256),
        ("RS384", &RSA_PKCS1_SHA384),
        ("RS512", &RSA_PKCS1_SHA512),
        ("PS256", &RSA_PSS_SHA256),
        ("PS384", &RSA_PSS_SHA384),
        ("PS512", &RSA_PSS_SHA512),
    ];
    let (pair, random) = (RsaKeyPair::generate(KeySize::Rsa2048).unwrap(), SystemRandom::new());
    let signed = |alg: &str, by: &'static dyn RsaEncoding, kid: Option<&str>| {
        token(json!({"alg": alg, "kid": kid}), &claims(), |message| {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(by, &random, message, &mut signature).unwrap();
            signature
        })
    };
    let der: PublicKeyX509Der = pair.public_key().as_der().unwrap();
    let (settings, _file) = with_pem(&pem("PUBLIC KEY", der.as_ref()));
    for (alg, by) in SIGNING {
        assert!(verify(&settings, &signed(alg, by, None)).is_ok(), "{alg}");
    }
    // A token is checked by the algorithm that it names.
    refused(&settings, &signed("RS256", &RSA_PSS_SHA256, None), "signature");
    refused(&settings, &signed("PS512", &RSA_PKCS1_SHA512, None), "signature");

    let long = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let der: PublicKeyX509Der = long.public_key().as_der().unwrap();
    let (settings, _file) = with_pem(&pem("PUBLIC KEY", der.as_ref()));
    let es = |alg: &str| token(json!({"alg": alg}), &claims(), |m| long.sign(&random, m).unwrap().as_ref().to_vec());
    assert!(verify(&settings, &es("ES384")).is_ok());
    refused(&settings, &es("ES256"), "algorithm");

    // A published key that names its algorithm is for that algorithm only.
    block_on(async {
        let provider = Provider::start().await;
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
        let jwk = |kid: &str, alg: Option<&str>| {
            json!({"kty": "RSA", "kid": kid, "alg": alg, "n": part(n.big_endian_without_leading_zero()),
                "e": part(e.big_endian_without_leading_zero())})
        };
        let point = long.public_key().as_ref();
        let ec = json!({"kty": "EC", "crv": "P-384", "kid": "ec", "x": part(&point[1..49]), "y": part(&point[49..])});
        provider.publish(json!([jwk("any", None), jwk("ps", Some("PS384")), jwk("oaep", Some("RSA-OAEP")), ec]));
        let verifier = Verifier::new(&provider.settings(), Clock::default()).unwrap();
        for (alg, by) in SIGNING {
            assert!(verifier.verify(&signed(alg, by, Some("any"))).await.is_ok(), "{alg}");
            assert_eq!(verifier.verify(&signed(alg, by, Some("ps"))).await.is_ok(), alg == "PS384", "{alg}");
            assert!(verifier.verify(&signed(alg, by, Some("oaep"))).await.is_err(), "{alg}");
        }
        let kid = token(json!({"alg": "ES384", "kid": "ec"}), &claims(), |m| {
            long.sign(&random, m).unwrap().as_ref().to_vec()
        });
        assert!(verifier.verify(&kid).await.is_ok());
        provider.server.stop(false).await;
    });
}

/// How an identity provider answers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Well,
    Failing,
    Silent,
    Empty,
    Babbling,
}

/// An identity provider on a free port.
struct Provider {
    url: String,
    keys: Arc<std::sync::Mutex<Value>>,
    fetches: Arc<AtomicUsize>,
    mood: Arc<std::sync::Mutex<Mood>>,
    server: ServerHandle,
}

impl Provider {
    async fn start() -> Self {
        let keys = Arc::new(std::sync::Mutex::new(json!([])));
        let (fetches, mood) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::new(Mood::Well)));
        let state = (Arc::clone(&keys), Arc::clone(&fetches), Arc::clone(&mood));
        let server = HttpServer::new(move || {
            let (keys, fetches, mood) = state.clone();
            let answer = move || {
                fetches.fetch_add(1, Ordering::SeqCst);
                let body = json!({"keys": *keys.lock().unwrap()}).to_string();
                let mood = *mood.lock().unwrap();
                async move {
                    // Long enough for all requests of a test to arrive.
                    rt::time::sleep(Duration::from_millis(30)).await;
                    match mood {
                        Mood::Well => HttpResponse::Ok().body(body),
                        Mood::Failing => HttpResponse::BadGateway().finish(),
                        Mood::Silent => std::future::pending().await,
                        Mood::Empty => HttpResponse::Ok().body(r#"{"keys":[]}"#),
                        Mood::Babbling => HttpResponse::Ok().body("<html>maintenance</html>"),
                    }
                }
            };
            App::new().route("/jwks", web::get().to(answer))
        })
        .workers(1)
        .bind(("127.0.0.1", 0))
        .unwrap();
        let url = format!("http://{}/jwks", server.addrs()[0]);
        let server = server.run();
        let handle = server.handle();
        rt::spawn(server);
        Self { url, keys, fetches, mood, server: handle }
    }

    fn publish(&self, keys: Value) {
        *self.keys.lock().unwrap() = keys;
    }

    fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    /// Waits until so many fetches have arrived. No request waits for the last one.
    async fn has_been_asked(&self, times: usize) {
        while self.fetches() < times {
            rt::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.fetches(), times);
    }

    fn settings(&self) -> settings::Auth {
        settings::Auth { jwks_url: Some(self.url.clone()), ..auth() }
    }
}

/// Asserts that the token could not be checked, and that the client is told when to retry.
#[track_caller]
fn assert_unknown(verdict: Result<Identity, Rejection>) {
    match verdict {
        Err(Rejection::KeysUnavailable { retry_after_secs: 1..=30 }) => {}
        other => panic!("expected that nobody can tell, found {other:?}"),
    }
}

#[test]
fn a_new_key_is_never_called_a_bad_one() {
    block_on(async {
        let provider = Provider::start().await;
        let (old, new, stranger) = (Pair::ec(), Pair::ec(), Pair::ec());
        provider.publish(json!([old.jwk("old")]));
        let clock = Clock::default();
        let verifier = Verifier::new(&provider.settings(), clock.clone()).unwrap();
        assert!(verifier.verify(&old.token(Some("old"))).await.is_ok());

        for round in 1..=3 {
            // A key is published a moment after the fetch that strangers have caused.
            let kid = format!("new-{round}");
            provider.publish(json!([old.jwk("old"), new.jwk(&kid)]));
            for unknown in ["x", "y", "z"] {
                assert_unknown(verifier.verify(&stranger.token(Some(unknown))).await);
            }
            assert_unknown(verifier.verify(&new.token(Some(&kid))).await);
            assert_unknown(verifier.verify(&stranger.token(None)).await);
            assert!(verifier.verify(&old.token(Some("old"))).await.is_ok(), "those that are known go on");
            assert_eq!(provider.fetches(), round);
            // However quick the strangers are: the fetch that they cause is the one that the user waits for.
            clock.advance(TimeDelta::seconds(30));
            let verdict = verifier.verify(&stranger.token(Some("x"))).await;
            assert_eq!(verdict.unwrap_err(), Rejection::Invalid("no key of the issuer has signed the token"));
            assert!(verifier.verify(&new.token(Some(&kid))).await.is_ok());
            assert_eq!(provider.fetches(), round + 1);
        }
        provider.server.stop(false).await;
    });
}

#[test]
fn a_provider_that_is_not_well_takes_no_key_away() {
    block_on(async {
        let provider = Provider::start().await;
        let (pair, new) = (Pair::ed(), Pair::ed());
        provider.publish(json!([pair.jwk("a")]));
        let clock = Clock::default();
        let verifier = Verifier::new(&provider.settings(), clock.clone()).unwrap();
        let signed = |pair: &Pair, kid: &str| {
            let claims = with("exp", json!(clock.now().timestamp() + 600));
            token(json!({"alg": "EdDSA", "kid": kid}), &claims, |message| pair.sign(message))
        };
        assert!(verifier.verify(&signed(&pair, "a")).await.is_ok());
        let mut asked = 1;
        for mood in [Mood::Failing, Mood::Empty, Mood::Babbling, Mood::Silent] {
            provider.is(mood);
            clock.advance(TimeDelta::seconds(301));
            let started = std::time::Instant::now();
            for _ in 0..3 {
                assert!(verifier.verify(&signed(&pair, "a")).await.is_ok(), "{mood:?}");
            }
            // No request has waited for the fetch: a silent provider would have cost it the timeout.
            assert!(started.elapsed() < Duration::from_secs(4), "{mood:?}: {:?}", started.elapsed());
            asked += 1;
            provider.has_been_asked(asked).await;
            // A new key cannot be told from an invalid one.
            assert_unknown(verifier.verify(&signed(&new, "b")).await);
        }
        // The provider is well again, and the key that it has published meanwhile is valid.
        provider.is(Mood::Well);
        provider.publish(json!([new.jwk("b")]));
        clock.advance(TimeDelta::seconds(30));
        assert!(verifier.verify(&signed(&new, "b")).await.is_ok());
        assert!(matches!(verifier.verify(&signed(&pair, "a")).await, Err(Rejection::Invalid(_))), "this one is gone");
        provider.server.stop(false).await;
    });
}

#[test]
fn a_withdrawn_key_is_no_good_after_a_quiet_time() {
    block_on(async {
        let provider = Provider::start().await;
        let (pair, new) = (Pair::ec(), Pair::ec());
        provider.publish(json!([pair.jwk("a")]));
        let clock = Clock::default();
        let verifier = Verifier::new(&provider.settings(), clock.clone()).unwrap();
        assert!(verifier.verify(&pair.token(Some("a"))).await.is_ok());
        provider.publish(json!([new.jwk("b")]));
        clock.advance(TimeDelta::seconds(600));
        assert!(matches!(verifier.verify(&pair.token(Some("a"))).await, Err(Rejection::Invalid(_))));
        assert_eq!(provider.fetches(), 2);
        provider.server.stop(false).await;
    });
}

#[test]
fn published_keys_are_fetched_once_and_again_when_they_rotate() {
    block_on(async {
        let provider = Provider::start().await;
        let (old, new) = (Pair::ec(), Pair::rsa());
        let enc = {
            let mut jwk = new.jwk("enc");
            jwk["use"] = json!("enc");
            jwk
        };
        provider.publish(
            json!([{"kty": "something new"}, enc, {"kty": "oct", "kid": "hs", "k": "c2VjcmV0"}, old.jwk("a")]),
        );
        let clock = Clock::default();
        let verifier = Verifier::new(&provider.settings(), clock.clone()).unwrap();

        // Many at once, one fetch.
        let known = old.token(Some("a"));
        let many = futures_util::future::join_all((0..20).map(|_| verifier.verify(&known))).await;
        assert!(many.iter().all(Result::is_ok));
        assert!(verifier.verify(&old.token(None)).await.is_ok(), "a token may leave the key's id out");
        assert_eq!(provider.fetches(), 1);

        // Unknown keys cause no more fetches than the settings allow, and stay unknown until the next one.
        for kid in ["b", "c", "d"] {
            assert_unknown(verifier.verify(&new.token(Some(kid))).await);
        }
        let symmetric = token(json!({"alg": "HS256", "kid": "hs"}), &claims(), hmac(b"secret"));
        assert!(matches!(verifier.verify(&symmetric).await, Err(Rejection::Invalid(_))));
        assert_unknown(verifier.verify(&new.token(Some("enc"))).await);
        assert_eq!(provider.fetches(), 1);

        // Rotation: the first token of the new key causes a fetch.
        provider.publish(json!([new.jwk("b")]));
        clock.advance(TimeDelta::seconds(31));
        assert!(verifier.verify(&new.token(Some("b"))).await.is_ok());
        assert_eq!(provider.fetches(), 2);
        assert!(matches!(verifier.verify(&known).await, Err(Rejection::Invalid(_))), "a key that is gone is gone");

        // Known key, wrong signature: no reason to fetch.
        clock.advance(TimeDelta::seconds(31));
        let forged = token(json!({"alg": "RS256", "kid": "b"}), &claims(), |_| vec![1; 256]);
        assert!(matches!(verifier.verify(&forged).await, Err(Rejection::Invalid(_))));
        assert_eq!(provider.fetches(), 2);
        provider.server.stop(false).await;
    });
}

#[test]
fn old_keys_serve_while_the_provider_is_away() {
    block_on(async {
        let provider = Provider::start().await;
        let pair = Pair::ed();
        provider.publish(json!([pair.jwk("a")]));
        let clock = Clock::default();
        let verifier = Verifier::new(&provider.settings(), clock.clone()).unwrap();
        let fresh = |exp_from: &Clock| {
            let claims = with("exp", json!(exp_from.now().timestamp() + 600));
            token(json!({"alg": "EdDSA", "kid": "a"}), &claims, |message| pair.sign(message))
        };

        provider.is(Mood::Failing);
        assert_unknown(verifier.verify(&fresh(&clock)).await);
        assert_unknown(verifier.verify(&fresh(&clock)).await);
        assert_eq!(provider.fetches(), 1, "a failure is remembered too");

        provider.is(Mood::Well);
        clock.advance(TimeDelta::seconds(31));
        assert!(verifier.verify(&fresh(&clock)).await.is_ok());
        assert_eq!(provider.fetches(), 2);

        provider.is(Mood::Failing);
        clock.advance(TimeDelta::seconds(301));
        assert!(verifier.verify(&fresh(&clock)).await.is_ok());
        provider.has_been_asked(3).await;
        assert!(verifier.verify(&fresh(&clock)).await.is_ok());
        assert_eq!(provider.fetches(), 3);
        provider.server.stop(false).await;
    });
}

/// Not a promise, a measurement: `cargo test --release -- --ignored --nocapture cost_of_a_token`.
#[test]
#[ignore = "measures"]
#[allow(clippy::print_stdout)]
fn cost_of_a_token() {
    let (ec, rsa) = (Pair::ec(), Pair::rsa());
    let hs = (with_secret(), hs256(&claims()), None);
    let ec_settings = with_pem(&ec.pem());
    let rsa_settings = with_pem(&rsa.pem());
    let cases = [
        hs,
        (ec_settings.0, ec.token(None), Some(ec_settings.1)),
        (rsa_settings.0, rsa.token(None), Some(rsa_settings.1)),
    ];
    for (settings, token, _file) in cases {
        let verifier = Verifier::new(&settings, Clock::default()).unwrap();
        let started = std::time::Instant::now();
        block_on(async {
            for _ in 0..20_000 {
                verifier.verify(&token).await.unwrap();
            }
        });
        println!("{:?} {:?} a token", settings.public_key_file.is_some(), started.elapsed() / 20_000);
    }
}
