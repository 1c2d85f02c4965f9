//! The scheduled passes, as the stories run them.

use std::time::Duration;

use chrono::TimeDelta;
use entity::tenant_usage;
use quaymaster::engine::Engine;
use quaymaster::pass::{Options, Pass, Report, Run};
use quaymaster::session;
use quaymaster::settings::Settings;
use sea_orm::EntityTrait;

use super::{By, Tenant, TestApp};

/// Live sessions, and bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub live_sessions: i64,
    pub bytes: i64,
}

/// Names the pass that [`child`] runs.
pub const PASS: &str = "QUAYMASTER_STORY_PASS";

/// Another process of this very binary, for a story that kills it in the middle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of other stories"]
async fn child() {
    let Ok(pass) = std::env::var(PASS) else { return };
    let env = std::env::vars().filter(|(name, _)| name != PASS);
    let engine = quaymaster::start::open(Settings::parse(None, env).unwrap()).await.unwrap();
    let options = Options { older_than: Some(TimeDelta::zero()), ..Options::default() };
    run(&engine, Pass::named(&pass).unwrap(), options).await;
}

async fn run(engine: &Engine, pass: Pass, options: Options) -> Report {
    let run = Run::new(options, By::System, Duration::from_secs(120), Default::default());
    let report = match pass {
        Pass::DetectAbandoned => Box::pin(session::detect_abandoned(engine, &run)).await,
        Pass::Cleanup => Box::pin(session::cleanup(engine, &run)).await,
        Pass::Reconcile => Box::pin(session::reconcile(engine, &run)).await,
        Pass::Orphans => Box::pin(session::orphans(engine, &run)).await,
    };
    report.unwrap()
}

impl TestApp {
    /// As the timetable runs it.
    pub async fn pass(&self, pass: Pass) -> Report {
        run(&self.engine().await, pass, Options::default()).await
    }

    /// What the tenant is said to hold.
    pub async fn usage(&self, tenant: &Tenant) -> Usage {
        let rows = tenant_usage::Entity::find().all(&self.database.rows).await.unwrap();
        rows.iter().filter(|row| row.tenant_id.0 == tenant.id).fold(Usage::default(), |sum, row| Usage {
            live_sessions: sum.live_sessions + row.live_sessions,
            bytes: sum.bytes + row.bytes,
        })
    }

    /// With `--older-than`.
    pub async fn pass_older_than(&self, pass: Pass, older_than: TimeDelta) -> Report {
        run(&self.engine().await, pass, Options { older_than: Some(older_than), dry_run: false }).await
    }

    pub async fn dry_pass(&self, pass: Pass, older_than: Option<TimeDelta>) -> Report {
        run(&self.engine().await, pass, Options { older_than, dry_run: true }).await
    }
}
