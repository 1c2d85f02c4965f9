//! Sessions that live through the program's own verbs, so that their history is true.

use entity::upload_session::{FailureReason, Status};
use entity::{TenantId, asset};
use quaymaster::caller::{Actor, Brands, Caller, Permissions};
use quaymaster::engine::Engine;
use quaymaster::error::Error;
use quaymaster::input::{FileName, MediaType, Metadata, Sha256, Slug, Text as _};
use quaymaster::session::{self, Change, NewUpload, Outcome, Session, transition};
use sea_orm::ActiveValue::Set;
use sea_orm::EntityTrait;
use serde_json::json;

use super::TestDb;

pub const KIB: u64 = 1_024;
pub const MIB: u64 = 1_024 * KIB;

/// A database with the schema of today, the program's engine on it, and a user of one tenant.
pub struct World {
    pub db: TestDb,
    pub engine: Engine,
    pub ann: Caller,
}

impl World {
    pub async fn begin(db: TestDb) -> Self {
        let db = db.migrated().await;
        let engine = db.engine().await;
        let ann = user(&engine, "acme").await;
        Self { db, engine, ann }
    }

    /// A direct session that takes bytes: `initiate`, `open`.
    pub async fn uploading(&self) -> Session {
        uploading(&self.engine, &self.ann).await
    }

    /// `initiate`, `open`, `complete`, and its asset.
    pub async fn completed(&self) -> Session {
        complete(&self.engine, &self.uploading().await).await
    }

    pub async fn failed(&self) -> Session {
        let change = Change::fail(&Actor::System, FailureReason::Abandoned);
        moved(transition(&self.engine, &self.uploading().await, change, async |_, _| Ok(())).await.unwrap())
    }

    /// A multipart session; there is no store to open it, which is done by hand.
    pub async fn multipart(&self) -> Session {
        let refused = session::initiate(&self.engine, &self.ann, new("multipart", 20 * MIB)).await;
        assert!(matches!(refused, Err(Error::Storage(_))));
        let filter = session::rows::Filter { statuses: vec![Status::Initiating], ..Default::default() };
        let found = session::list(&self.engine, &self.ann, &filter, None, 1).await.unwrap();
        let change = Change::open(&self.ann.actor, Some("upload-1"));
        moved(transition(&self.engine, &found.items[0], change, async |_, _| Ok(())).await.unwrap())
    }
}

/// An operator, as the record names them.
pub fn operator(name: &str) -> Actor {
    Actor::Operator(name.to_owned())
}

pub async fn user(engine: &Engine, slug: &str) -> Caller {
    let tenant: TenantId =
        quaymaster::tenant::create(engine, &Actor::Command, &Slug::parse(slug).unwrap(), &[Slug::main()], None)
            .await
            .unwrap()
            .tenant_id;
    Caller { tenant, actor: Actor::User("ann".to_owned()), brands: Brands::All, permissions: Permissions::parse(["*"]) }
}

pub fn new(name: &str, file_size: u64) -> NewUpload {
    NewUpload {
        file_name: FileName::parse(name).unwrap(),
        file_size,
        mime_type: MediaType::parse("text/plain").unwrap(),
        brand_id: None,
        client_reference: None,
        batch_reference: None,
        fingerprint: None,
        checksum_sha256: Some(Sha256::parse("ab".repeat(32)).unwrap()),
        metadata: Metadata::default(),
        idempotency_key: None,
    }
}

pub async fn uploading(engine: &Engine, ann: &Caller) -> Session {
    session::initiate(engine, ann, new("note.txt", 7)).await.unwrap_or_else(|error| panic!("{error}")).session
}

pub async fn complete(engine: &Engine, session: &Session) -> Session {
    let change = Change::complete(&Actor::System, "etag-1", true);
    let outcome = transition(engine, session, change, async |tx, session| {
        asset::Entity::insert(asset_of(session)).exec_without_returning(tx.conn()).await.map_err(Error::Db)?;
        Ok(())
    });
    moved(outcome.await.unwrap())
}

pub fn moved(outcome: Outcome) -> Session {
    match outcome {
        Outcome::Moved(session) => session,
        other => panic!("{other:?}"),
    }
}

fn asset_of(session: &Session) -> asset::ActiveModel {
    asset::ActiveModel {
        tenant_id: Set(session.tenant_id),
        id: Set(session.asset_id),
        upload_session_id: Set(session.id),
        brand_id: Set(session.brand_id),
        created_by: Set(session.created_by.clone()),
        status: Set(asset::Status::Uploaded),
        title: Set(session.file_name.clone()),
        file_name: Set(session.file_name.clone()),
        file_size: Set(session.file_size),
        mime_type: Set(session.mime_type.clone()),
        bucket: Set(session.bucket.clone()),
        object_key: Set(format!("temp/uploads/{}/original", session.id)),
        etag: Set("etag-1".to_owned()),
        checksum_sha256: Set(session.checksum_sha256.clone()),
        checksum_verified: Set(true),
        metadata: Set(json!({})),
        created_at: Set(session.updated_at),
        ready_at: Set(None),
        failure: Set(None),
    }
}
