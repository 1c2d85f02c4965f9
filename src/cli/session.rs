use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

use clap::Subcommand;
use entity::SessionId;
use entity::upload_session::Status;
use serde_json::json;

use super::table::{lines, or_dash, size, table, time};
use super::tenant::named;
use super::{ACTOR, failed, open, print, said};
use crate::caller::{Admin, Caller};
use crate::engine::Engine;
use crate::input::{Reason, Reference};
use crate::session::rows::Filter;
use crate::session::{self, Inspection, Session};
use crate::views::{InspectionView, SessionView};

/// Maximum number of sessions on one page from the database.
const PAGE: u64 = 200;

/// Which session.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// The session's id
    id: SessionId,
    /// The session's tenant: its slug or id; by default any tenant
    #[arg(long, value_name = "SLUG")]
    tenant: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List a tenant's sessions, newest first
    #[command(after_help = "\
Examples:
  quaymaster session list --tenant acme
  quaymaster session list --tenant acme --status UPLOADING --status INITIATING --user ann
  quaymaster session list --tenant acme --status FAILED --limit 1000 --json | jq -r .upload_session_id")]
    List {
        /// The tenant's slug or id
        #[arg(long, value_name = "SLUG")]
        tenant: String,
        /// INITIATING, UPLOADING, COMPLETED, FAILED or CANCELLED; by default any
        #[arg(long, value_name = "STATE", value_parser = status)]
        status: Vec<Status>,
        /// The user who opened the session
        #[arg(long, value_name = "USER", value_parser = Reference::from_str)]
        user: Option<Reference>,
        /// The batch's reference
        #[arg(long, value_name = "REF", value_parser = Reference::from_str)]
        batch: Option<Reference>,
        /// The file's reference within its batch
        #[arg(long, value_name = "REF", value_parser = Reference::from_str)]
        reference: Option<Reference>,
        /// List at most this many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u64,
        /// Print a line of JSON for each session
        #[arg(long)]
        json: bool,
    },
    /// Show a session with its history, its asset, and what the store holds of it
    #[command(after_help = "\
Examples:
  quaymaster session show 0199d2c4-…")]
    Show {
        #[command(flatten)]
        which: Which,
    },
    /// Cancel a session; a session that has ended stays as it is
    #[command(after_help = "\
Examples:
  quaymaster session cancel 0199d2c4-…")]
    Cancel {
        #[command(flatten)]
        which: Which,
    },
    /// Make a session FAILED, for the reason `operator`
    #[command(after_help = "\
Examples:
  quaymaster session fail 0199d2c4-… --reason 'the file is not theirs to send'")]
    Fail {
        #[command(flatten)]
        which: Which,
        /// Why, in 1 to 500 characters; kept in the session's history
        #[arg(long, value_name = "TEXT", value_parser = Reason::from_str)]
        reason: Reason,
    },
}

fn status(name: &str) -> Result<Status, String> {
    let known = "must be INITIATING, UPLOADING, COMPLETED, FAILED or CANCELLED";
    Status::named(&name.to_ascii_uppercase()).ok_or_else(|| known.to_owned())
}

pub(super) async fn run(command: Command, config: Option<&Path>) -> ExitCode {
    let engine = match open(config).await {
        Ok(engine) => engine,
        Err(error) => return failed(error),
    };
    let answer = match command {
        Command::List { tenant, status, user, batch, reference, limit, json } => {
            let filter = Filter {
                statuses: status,
                created_by: user,
                batch_reference: batch,
                client_reference: reference,
                ..Filter::default()
            };
            list(&engine, &tenant, &filter, limit, json).await
        }
        Command::Show { which } => show(&engine, &which).await,
        Command::Cancel { which } => cancel(&engine, &which).await,
        Command::Fail { which, reason } => fail(&engine, &which, &reason).await,
    };
    match answer {
        Ok(text) => print(&text),
        Err(error) => failed(error),
    }
}

async fn operating(engine: &Engine, which: &Which) -> Result<Caller, String> {
    if let Some(tenant) = &which.tenant {
        return Ok(Caller::operating(named(engine, tenant).await?.id, ACTOR.clone()));
    }
    let operator = Admin::Operator(ACTOR.clone());
    session::within(engine, &operator, None, which.id).await.map_err(said)
}

async fn list(engine: &Engine, tenant: &str, filter: &Filter, limit: u64, json: bool) -> Result<String, String> {
    let caller = Caller::operating(named(engine, tenant).await?.id, ACTOR.clone());
    let (mut sessions, mut before, mut left) = (Vec::new(), None, limit);
    while left > 0 {
        let page = session::list(engine, &caller, filter, before, left.min(PAGE)).await.map_err(said)?;
        left -= page.items.len() as u64;
        sessions.extend(page.items);
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    if json {
        return Ok(lines(sessions.into_iter().map(SessionView::from)));
    }
    Ok(sessions_table(&sessions))
}

async fn show(engine: &Engine, which: &Which) -> Result<String, String> {
    let caller = operating(engine, which).await?;
    let inspection = session::inspect(engine, &caller, which.id).await.map_err(said)?;
    Ok(if which.json { json!(InspectionView::from(inspection)).to_string() } else { described(&inspection) })
}

async fn cancel(engine: &Engine, which: &Which) -> Result<String, String> {
    let caller = operating(engine, which).await?;
    Ok(one(session::cancel(engine, &caller, which.id).await.map_err(said)?, which.json))
}

async fn fail(engine: &Engine, which: &Which, reason: &Reason) -> Result<String, String> {
    let caller = operating(engine, which).await?;
    Ok(one(session::fail(engine, &caller, which.id, reason).await.map_err(said)?, which.json))
}

fn one(session: Session, json: bool) -> String {
    if json { json!(SessionView::from(session)).to_string() } else { sessions_table(&[session]) }
}

fn sessions_table(sessions: &[Session]) -> String {
    let titles = ["SESSION", "STATUS", "REASON", "USER", "LAST ACTIVITY", "SIZE>", "FILE"];
    let rows: Vec<_> = sessions
        .iter()
        .map(|session| {
            vec![
                session.id.to_string(),
                session.status.name().to_owned(),
                or_dash(session.failure_reason, |reason| reason.name().to_owned()),
                session.created_by.clone(),
                time(session.last_activity_at),
                size(session.file_size),
                session.file_name.clone(),
            ]
        })
        .collect();
    table(&titles, &rows)
}

fn described(inspection: &Inspection) -> String {
    let Inspection { session, events, asset, stored } = inspection;
    let store = match stored {
        Ok(stored) => format!(
            "{} parts of {} bytes in all; {}",
            stored.parts,
            stored.part_bytes,
            stored.object_bytes.map_or_else(|| "no object".to_owned(), |bytes| format!("an object of {bytes} bytes"))
        ),
        Err(error) => format!("does not answer: {error}"),
    };
    let asset = asset.as_ref().map_or_else(|| "none".to_owned(), |asset| asset.id.to_string());
    let rows: Vec<_> = events
        .iter()
        .map(|event| {
            vec![
                event.seq.to_string(),
                time(event.at),
                event.event.clone(),
                or_dash(event.to_status, |to| to.name().to_owned()),
                event.actor.clone(),
                event.details.to_string(),
            ]
        })
        .collect();
    let history = table(&["SEQ>", "AT", "EVENT", "TO", "ACTOR", "DETAILS"], &rows);
    format!(
        "{}\n\nasset  {asset}\nstore  {store}\nends   {}\n\n{history}",
        sessions_table(std::slice::from_ref(session)),
        time(session.expires_at)
    )
}
