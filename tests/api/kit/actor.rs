//! Tenants, their users, and what these do.

use std::collections::BTreeMap;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Reply, TestApp};

/// A tenant with its brands, by slug.
#[derive(Clone)]
pub struct Tenant {
    pub app: TestApp,
    pub id: Uuid,
    pub brands: BTreeMap<String, Uuid>,
}

impl Tenant {
    /// A user of the brand `main` with every permission of `*`.
    pub fn user(&self, name: &str) -> Actor {
        let claims = json!({
            "sub": name, "tenant_id": self.id, "brand_ids": [self.brands["main"]], "permissions": ["*"],
        });
        Actor { app: self.app.clone(), tenant: self.clone(), claims }
    }

    pub fn brand(&self, slug: &str) -> Uuid {
        self.brands[slug]
    }
}

/// Somebody with a token. Its `exp` is always an hour away on the app's clock, unless `claims` says otherwise.
#[derive(Clone)]
pub struct Actor {
    pub app: TestApp,
    /// Where it looks for brands by name; an operator's is any.
    pub tenant: Tenant,
    pub claims: Value,
}

/// A session as the server described it when it was opened, and the bytes that belong to it.
#[derive(Clone, Debug)]
pub struct Upload {
    pub id: String,
    /// The whole answer to initiate.
    pub session: Value,
    pub bytes: Vec<u8>,
}

impl Upload {
    pub fn new(session: Value) -> Self {
        let id = session["upload_session_id"].as_str().expect("a session has an id").to_owned();
        let size = usize::try_from(session["file_size"].as_u64().expect("a session has a size")).unwrap();
        // Bytes that repeat at no part's length, and differ from one session to the next.
        let mut state = id.bytes().fold(1u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into())) | 1;
        let mut bytes = Vec::with_capacity(size + 8);
        while bytes.len() < size {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes.truncate(size);
        Self { id, session, bytes }
    }

    /// One whose bytes nobody will send: a session of any size, or an id that may not be one.
    pub fn without_bytes(session: Value) -> Self {
        let id = session["upload_session_id"].as_str().unwrap_or_default().to_owned();
        Self { id, session, bytes: Vec::new() }
    }

    /// Where its object lies: the contract with bucket policies.
    pub fn key(&self) -> String {
        format!("temp/uploads/{}/original", self.id)
    }

    pub fn upload_id(&self) -> &str {
        self.session["multipart_upload_id"].as_str().expect("a multipart session")
    }

    pub fn total_parts(&self) -> usize {
        usize::try_from(self.session["total_parts"].as_u64().expect("a multipart session")).unwrap()
    }

    /// A part's bytes, by its number.
    pub fn part(&self, number: usize) -> &[u8] {
        let chunk = usize::try_from(self.session["chunk_size"].as_u64().expect("a multipart session")).unwrap();
        &self.bytes[(number - 1) * chunk..self.bytes.len().min(number * chunk)]
    }
}

impl Actor {
    pub fn with(mut self, claim: &str, value: Value) -> Self {
        self.claims[claim] = value;
        self
    }

    pub fn permissions(self, permissions: &[&str]) -> Self {
        self.with("permissions", json!(permissions))
    }

    pub fn brands(self, slugs: &[&str]) -> Self {
        let ids: Vec<Uuid> = slugs.iter().map(|slug| self.tenant.brand(slug)).collect();
        self.with("brand_ids", json!(ids))
    }

    pub fn all_brands(self) -> Self {
        self.with("brand_ids", json!("*"))
    }

    pub fn token(&self) -> String {
        let mut claims = self.claims.clone();
        if claims["exp"].is_null() {
            claims["exp"] = json!(self.app.clock.now().timestamp() + 3600);
        }
        let key = EncodingKey::from_secret(super::JWT_SECRET.as_bytes());
        jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.app.send(reqwest::Method::GET, path, |request| request.bearer_auth(self.token())).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.app.send(reqwest::Method::POST, path, |request| request.bearer_auth(self.token()).json(body)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Reply {
        self.app.send(reqwest::Method::PATCH, path, |request| request.bearer_auth(self.token()).json(body)).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.app.send(reqwest::Method::DELETE, path, |request| request.bearer_auth(self.token())).await
    }

    pub async fn put(&self, path: &str) -> Reply {
        self.app.send(reqwest::Method::PUT, path, |request| request.bearer_auth(self.token())).await
    }

    /// Opens a session, which must be new.
    #[track_caller]
    pub fn initiate(&self, file_name: &str, file_size: u64) -> impl Future<Output = Upload> {
        let at = std::panic::Location::caller();
        let body = json!({"file_name": file_name, "file_size": file_size});
        async move {
            let reply = self.initiate_with(&body).await;
            assert_eq!(reply.status, 201, "at {at}: {reply}");
            Upload::new(reply.json())
        }
    }

    pub async fn initiate_with(&self, body: &Value) -> Reply {
        self.post("/app/uploads/initiate", body).await
    }

    pub async fn initiate_with_key(&self, key: &str, body: &Value) -> Reply {
        self.app
            .send(reqwest::Method::POST, "/app/uploads/initiate", |request| {
                request.bearer_auth(self.token()).header("Idempotency-Key", key).json(body)
            })
            .await
    }

    pub async fn initiate_batch(&self, body: &Value) -> Reply {
        self.post("/app/uploads/initiate-batch", body).await
    }

    /// Sends a direct session's bytes, and says what the store answered.
    pub async fn send(&self, upload: &Upload) -> u16 {
        self.send_to(&upload.session, upload.bytes.clone()).await
    }

    /// Sends bytes to the URL in an answer, with the headers it asks for and no others. 499 where the store hung up:
    /// one that refuses by the head alone need not read the body.
    pub async fn send_to(&self, answer: &Value, bytes: Vec<u8>) -> u16 {
        let url = answer["upload_url"].as_str().unwrap_or_else(|| panic!("no URL in {answer}"));
        // As browsers do; this client leaves it out where there are no bytes.
        let mut request = self.app.http.put(url).header("content-length", bytes.len()).body(bytes);
        for (name, value) in answer["upload_headers"].as_object().expect("upload_headers is an object") {
            request = request.header(name, value.as_str().expect("a header is text"));
        }
        match request.send().await {
            Ok(answer) => answer.status().as_u16(),
            Err(error) if error.is_connect() => panic!("{url}: {error:?}"),
            Err(_) => 499,
        }
    }

    /// Sends one part, which the store must take.
    pub async fn put_part(&self, upload: &Upload, number: usize) {
        let url = self.part_url(upload, number).await.ok();
        assert_eq!(self.send_to(&url, upload.part(number).to_vec()).await, 200, "part {number}");
    }

    pub async fn send_all_parts(&self, upload: &Upload) {
        for number in 1..=upload.total_parts() {
            self.put_part(upload, number).await;
        }
    }

    pub async fn part_url(&self, upload: &Upload, number: usize) -> Reply {
        let path = format!("/app/uploads/{}/multipart-part-url", upload.id);
        self.post(&path, &json!({"part_number": number})).await
    }

    pub async fn part_urls(&self, upload: &Upload, which: &Value) -> Reply {
        self.post(&format!("/app/uploads/{}/multipart-part-urls", upload.id), which).await
    }

    pub async fn complete(&self, upload: &Upload) -> Reply {
        self.complete_with(&json!({"upload_session_id": upload.id})).await
    }

    pub async fn complete_with(&self, body: &Value) -> Reply {
        self.post("/app/assets/upload/complete", body).await
    }

    pub async fn complete_batch(&self, uploads: &[Value]) -> Reply {
        self.post("/app/assets/upload/complete-batch", &json!({"uploads": uploads})).await
    }

    pub async fn cancel(&self, upload: &Upload) -> Reply {
        self.post(&format!("/app/uploads/{}/cancel", upload.id), &json!({})).await
    }

    pub async fn resume(&self, upload: &Upload) -> Reply {
        self.get(&format!("/app/uploads/{}/resume", upload.id)).await
    }

    pub async fn activity(&self, upload: &Upload) -> Reply {
        self.put(&format!("/app/uploads/{}/activity", upload.id)).await
    }

    pub async fn session(&self, upload: &Upload) -> Reply {
        self.get(&format!("/app/uploads/{}", upload.id)).await
    }

    pub async fn status(&self, upload: &Upload) -> String {
        self.session(upload).await.ok()["status"].as_str().unwrap_or_default().to_owned()
    }

    /// `query` as it stands after the `?`.
    pub async fn list(&self, query: &str) -> Reply {
        self.get(&format!("/app/uploads?{query}")).await
    }

    /// What happened to a session: the names of its events.
    pub async fn history(&self, upload: &Upload) -> Vec<String> {
        let events = self.get(&format!("/app/uploads/{}/events", upload.id)).await.ok();
        let events = events["data"].as_array().expect("events are a list");
        events.iter().map(|event| event["event"].as_str().unwrap_or_default().to_owned()).collect()
    }

    pub async fn batch(&self, reference: &str) -> Reply {
        self.get(&format!("/app/batches/{reference}")).await
    }
}
