//! Where commands write: a stream that is closed or full, a signal in the middle, an error with a cause.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::kit::{MIB, Op, TestApp, stories};

stories![
    push_needs_nobody_to_listen,
    push_says_what_came_of_each_file_when_it_is_stopped,
    errors_are_told_with_their_causes,
];

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// The end of a pipe that nobody reads any more.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn program(app: &TestApp, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quaymaster"));
    command.args(words).env_clear().envs(app.env()).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Unlike `Command::output`, leaves the streams as they were set.
async fn run(command: &mut Command) -> Output {
    command.spawn().unwrap().wait_with_output().await.unwrap()
}

fn file(app: &TestApp, name: &str, bytes: u64) -> PathBuf {
    let path = app.folder.path().join(name);
    let mut file = File::create(&path).unwrap();
    file.write_all(&vec![7; usize::try_from(bytes).unwrap()]).unwrap();
    path
}

fn lines(stdout: &[u8]) -> Vec<Value> {
    std::str::from_utf8(stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn push_needs_nobody_to_listen(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (good, gone) = (file(&app, "good.txt", 10), app.folder.path().join("gone.txt"));
    let (server, token) = (app.url(""), ann.token());
    let words =
        ["push", good.to_str().unwrap(), gone.to_str().unwrap(), "--server", &server, "--token", &token, "--json"];
    for stderr in [full(), closed()] {
        let output = run(program(&app, &words).stderr(stderr)).await;
        assert_eq!(output.status.code(), Some(1), "one of the files is not there: {output:?}");
        let said = lines(&output.stdout);
        assert_eq!((said.len(), &said[2]["summary"]["failed"]), (3, &json!(1)));
        assert!(said[0]["asset"].is_object(), "{}", said[0]);
    }
    // A reader that has seen enough is no failure, and a full disk is one.
    for words in [&words[..2], &["completions", "bash"], &["openapi"]] {
        let words = if words[0] == "push" {
            [words, &["--server", &server, "--token", &token]].concat()
        } else {
            words.to_vec()
        };
        for (stdout, code) in [(closed(), 0), (full(), 1)] {
            let output = run(program(&app, &words).stdout(stdout)).await;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
            assert_eq!(said.contains("cannot write to standard output"), code == 1, "{words:?}: {said}");
        }
        let deaf = run(program(&app, &words).stdout(full()).stderr(full())).await;
        assert_eq!(deaf.status.code(), Some(1), "{words:?}: {deaf:?}");
    }
}

async fn push_says_what_came_of_each_file_when_it_is_stopped(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (small, large) = (file(&app, "small.txt", 10), file(&app, "large.bin", 6 * MIB));
    let (server, token) = (app.url(""), ann.token());
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let held = app.store.faults().hold_answer(Op::CompleteMultipartUpload);
        let words = [
            "push",
            small.to_str().unwrap(),
            large.to_str().unwrap(),
            "--server",
            &server,
            "--token",
            &token,
            "--json",
            "--batch",
            signal,
        ];
        let child = program(&app, &words).spawn().unwrap();
        held.arrived().await;
        let of_batch = format!("batch_reference={signal}&status=COMPLETED");
        while ann.list(&of_batch).await.ok()["data"] == json!([]) {
            tokio::task::yield_now().await;
        }
        let pid = child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().await.unwrap().success());
        let output = child.wait_with_output().await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let said = lines(&output.stdout);
        assert_eq!(said.len(), 3, "{said:?}");
        assert_eq!((&said[1]["result"], &said[1]["problem"]["code"]), (&json!("failed"), &json!("interrupted")));
        assert_eq!(said[2]["summary"]["interrupted"], true);
        assert!(String::from_utf8_lossy(&output.stderr).contains("the same command continues from here"));
        held.release();
        app.store.heal();
        // It does.
        let output = run(&mut program(&app, &words)).await;
        assert_eq!((output.status.code(), lines(&output.stdout)[2]["summary"]["failed"].clone()), (Some(0), json!(0)));
    }
}

async fn errors_are_told_with_their_causes(app: TestApp) {
    let gone = app.folder.path().join("no-key.pem");
    app.set("QUAYMASTER_AUTH__PUBLIC_KEY_FILE", gone.to_str().unwrap());
    for (words, says) in [
        (&["serve"][..], ["no-key.pem", "No such file"]),
        (&["health", "--server", "http://127.0.0.1:1"], ["does not answer", "refused"]),
    ] {
        let output = run(program(&app, words).env("PORT", "0")).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert!(says.iter().all(|says| said.contains(says)), "{words:?}: {said}");
    }
    app.set("QUAYMASTER_AUTH__PUBLIC_KEY_FILE", "");
}
