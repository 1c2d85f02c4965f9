//! A statement fails in the middle of a verb's transaction, at each table that the verb writes: the verb is taken back as a
//! whole, the connection is fit for the next one, and the same request works once the database does.

use sea_orm::{ConnectionTrait, EntityTrait};
use serde_json::json;

use crate::kit::{Actor, MIB, Pair, Reply, TestApp, Upload, stories};

stories![a_statement_that_fails_takes_back_the_whole_verb];

const TABLES: [&str; 6] = ["upload_session", "upload_event", "tenant_usage", "asset", "job", "tenant"];
const WRITES: [&str; 3] = ["INSERT", "UPDATE", "DELETE"];
/// disk_full, io_error, query_canceled, lock_not_available, read_only_sql_transaction (PostgreSQL, appendix A).
const CODES: [&str; 5] = ["53100", "58030", "57014", "55P03", "25006"];

/// Makes every such write fail. SQLite ends the whole transaction by itself, as it does on a full disk; PostgreSQL takes
/// nothing more in it.
async fn order(app: &TestApp, write: &str, table: &str, code: &str) {
    let rows = &app.database.rows;
    let sql = match app.pair {
        Pair::Embedded => format!(
            "CREATE TRIGGER ordered BEFORE {write} ON {table} BEGIN SELECT RAISE(ROLLBACK, 'the story fails this'); END"
        ),
        Pair::Postgres => format!(
            "CREATE FUNCTION ordered() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION 'the story fails this' USING ERRCODE = '{code}'; END $$;
             CREATE TRIGGER ordered BEFORE {write} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION ordered()"
        ),
    };
    rows.execute_unprepared(&sql).await.unwrap();
}

async fn heal(app: &TestApp, table: &str) {
    let sql = match app.pair {
        Pair::Embedded => "DROP TRIGGER ordered".to_owned(),
        Pair::Postgres => format!("DROP TRIGGER ordered ON {table}; DROP FUNCTION ordered()"),
    };
    app.database.rows.execute_unprepared(&sql).await.unwrap();
}

#[derive(Clone, Copy, Debug)]
enum Verb {
    Direct,
    Multipart,
    Batch,
    Complete,
    CompleteBatch,
    Cancel,
}

const VERBS: [Verb; 6] =
    [Verb::Direct, Verb::Multipart, Verb::Batch, Verb::Complete, Verb::CompleteBatch, Verb::Cancel];

async fn subjects(verb: Verb, ann: &Actor) -> Vec<Upload> {
    let count = match verb {
        Verb::Direct | Verb::Multipart | Verb::Batch => 0,
        Verb::Complete | Verb::Cancel => 1,
        Verb::CompleteBatch => 2,
    };
    let mut uploads = Vec::new();
    for _ in 0..count {
        let upload = ann.initiate("a", 5).await;
        if !matches!(verb, Verb::Cancel) {
            assert_eq!(ann.send(&upload).await, 200);
        }
        uploads.push(upload);
    }
    uploads
}

/// The same request for the same `name`.
async fn call(verb: Verb, ann: &Actor, subjects: &[Upload], name: &str) -> Reply {
    match (verb, subjects) {
        (Verb::Direct, _) => ann.initiate_with_key(name, &json!({"file_name": name, "file_size": 5})).await,
        (Verb::Multipart, _) => ann.initiate_with_key(name, &json!({"file_name": name, "file_size": 6 * MIB})).await,
        (Verb::Batch, _) => {
            let files = ["1", "2"].map(|n| json!({"file_name": n, "file_size": 5, "client_reference": n}));
            ann.initiate_batch(&json!({"batch_reference": name, "files": files})).await
        }
        (Verb::Complete, [upload]) => ann.complete(upload).await,
        (Verb::Cancel, [upload]) => ann.cancel(upload).await,
        (Verb::CompleteBatch, uploads) => {
            let named: Vec<_> = uploads.iter().map(|upload| json!({"upload_session_id": upload.id})).collect();
            ann.complete_batch(&named).await
        }
        (Verb::Complete | Verb::Cancel, _) => unreachable!("each has a subject"),
    }
}

async fn a_statement_that_fails_takes_back_the_whole_verb(app: TestApp) {
    // A cancel's record of what it did to the store may be what fails.
    app.expect_leftovers();
    app.expect_bugs();
    app.operator("ola").patch("/admin/tenants/globex", &json!({"suspended": true})).await.ok();
    let (ann, eve) = (app.tenant("acme").user("ann"), app.tenant("globex").user("eve"));
    let mut failed = 0;
    let mut codes = CODES.iter().cycle();
    for table in TABLES {
        for write in WRITES {
            for verb in VERBS {
                let code = codes.next().unwrap();
                let name = format!("{verb:?} {write} {table} {code}");
                let uploads = subjects(verb, &ann).await;
                order(&app, write, table, code).await;
                let reply = call(verb, &ann, &uploads, &name).await;
                heal(&app, table).await;
                // SQLite can only be made to fail so with a code of its own, which is no outage; a batch then says so of each file.
                let refused: &[u16] = if app.pair == Pair::Embedded { &[500, 422] } else { &[503] };
                assert!(reply.status < 300 || refused.contains(&reply.status), "{name}: {reply}");
                failed += usize::from(reply.status >= 500);

                // An ordinary roll-back comes over what the failure has left of the connection.
                eve.initiate_with(&json!({"file_name": "b", "file_size": 1})).await.is_problem(409, "tenant-suspended");
                let after = ann.initiate("after", 1).await;
                let seen = entity::upload_session::Entity::find().all(&app.database.rows).await.unwrap();
                let seen = seen.iter().any(|session| session.id.to_string() == after.id);
                assert!(seen, "{name}: {} was answered, and nobody else sees it", after.id);
                ann.cancel(&after).await.ok();

                let again = call(verb, &ann, &uploads, &name).await;
                assert!(again.status < 300 && again.status != 207, "{name}: {again}");
            }
        }
    }
    assert!(failed >= 15, "only {failed} statements were made to fail");
}
