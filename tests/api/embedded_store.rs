//! The embedded store inside the real program: what its clients can do to the server, and where its URLs lead.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::program::Embedded;

/// Far more than a busy machine needs, and less than any time-out of the store or of a call to it.
const SOON: Duration = Duration::from_secs(25);

#[tokio::test]
async fn neither_idle_sockets_nor_slow_bodies_hold_up_the_server() {
    more_files();
    let embedded = Embedded::new();
    embedded.said(&["tenant", "create", "acme"]).await;
    let token = embedded.said(&["token", "--tenant", "acme"]).await;
    let _server = embedded.serve().await;
    let file = json!({"file_name": "a.txt", "file_size": 5});
    let (status, victim) = embedded.post(&token, "/app/uploads/initiate", &file).await;
    assert_eq!(status, 201, "{victim}");

    // One client opens 600 sockets and says nothing, and then begins 520 times to send to one URL.
    let url = victim["upload_url"].as_str().unwrap();
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut sockets = Vec::new();
    for _ in 0..600 {
        sockets.push(TcpStream::connect(host).await.unwrap());
    }
    let head = format!("PUT /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 5\r\ncontent-type: {}\r\n\r\nh", {
        victim["upload_headers"]["content-type"].as_str().unwrap()
    });
    for _ in 0..520 {
        let mut socket = TcpStream::connect(host).await.unwrap();
        // Those beyond its share and the line for it are turned away.
        if socket.write_all(head.as_bytes()).await.is_ok() {
            sockets.push(socket);
        }
    }

    let neighbour = reqwest::Client::builder().no_proxy().local_address(Some(Ipv4Addr::new(127, 0, 0, 2).into()));
    let neighbour = neighbour.build().unwrap();
    let other = async {
        let (status, session) = embedded.post(&token, "/app/uploads/initiate", &file).await;
        assert_eq!(status, 201, "{session}");
        let put = neighbour.put(session["upload_url"].as_str().unwrap()).body("hello");
        let put = put.header("content-type", session["upload_headers"]["content-type"].as_str().unwrap());
        assert_eq!(put.send().await.unwrap().status(), 200);
        let complete = json!({"upload_session_id": session["upload_session_id"]});
        let (status, asset) = embedded.post(&token, "/app/assets/upload/complete", &complete).await;
        assert_eq!(status, 201, "{asset}");
    };
    timeout(SOON, other).await.expect("others wait for what one client does");
}

/// The test holds more than a thousand sockets itself.
fn more_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

/// Starts a server, and returns once it is ready at this address.
async fn start(embedded: &Embedded, url: &str, mut server: Command) -> Child {
    let child = server.kill_on_drop(true).spawn().unwrap();
    for _ in 0..600 {
        let ready = embedded.http.get(format!("{url}/readyz")).send().await;
        if ready.is_ok_and(|answer| answer.status() == 200) {
            return child;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the server does not become ready");
}

/// A server with two workers whose shell sets limits first, and what it has logged once it is ready.
async fn serve_under(limits: &str) -> (Child, String) {
    let embedded = Embedded::new();
    let log = tempfile::NamedTempFile::new().unwrap();
    let program = embedded.command(&["serve"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{limits}; exec \"$0\" serve"), env!("CARGO_BIN_EXE_quaymaster")]).env_clear();
    shell.envs(program.as_std().get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.env("QUAYMASTER_SERVER__WORKERS", "2").env("QUAYMASTER_SERVER__MAX_CONNECTIONS", "50");
    shell.stderr(Stdio::from(log.reopen().unwrap()));
    let server = start(&embedded, &embedded.url(""), shell).await;
    (server, std::fs::read_to_string(log.path()).unwrap())
}

/// The soft and the hard limit of open files.
fn open_files_of(server: &Child) -> (u64, u64) {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.id().unwrap())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[tokio::test]
async fn the_limit_of_open_files_is_raised_or_complained_of() {
    // 2 × 50 connections, 512 × 3 for the store, 3 × 12 for the database, 256 for all else.
    let (server, log) = serve_under("ulimit -Sn 300; ulimit -Hn 1928").await;
    assert_eq!(open_files_of(&server), (1928, 1928));
    assert!(!log.contains("RLIMIT_NOFILE"), "{log}");

    let (server, log) = serve_under("ulimit -Sn 300; ulimit -Hn 1927").await;
    assert_eq!(open_files_of(&server), (1927, 1927));
    assert!(log.contains("RLIMIT_NOFILE") && log.contains("1927") && log.contains("1928"), "{log}");
    assert!(log.contains("server.max_connections"), "{log}");
}

#[tokio::test]
async fn an_address_of_ipv6_stands_in_brackets_wherever_a_url_names_it() {
    let embedded = Embedded::new();
    embedded.said(&["tenant", "create", "acme"]).await;
    let token = embedded.said(&["token", "--tenant", "acme"]).await;
    let url = embedded.url("").replace("127.0.0.1", "[::1]");
    let mut server = embedded.command(&["serve"]);
    server.env("QUAYMASTER_SERVER__HOST", "::1").env("QUAYMASTER_EMBEDDED__HOST", "::1").stderr(Stdio::inherit());
    let _server = start(&embedded, &url, server).await;

    let mut health = embedded.command(&["health"]);
    let health = health.env("QUAYMASTER_SERVER__HOST", "::1").output().await.unwrap();
    assert!(health.status.success(), "{}", String::from_utf8_lossy(&health.stderr));
    let post = async |path: &str, body: serde_json::Value| {
        let request = embedded.http.post(format!("{url}{path}")).bearer_auth(&token).json(&body);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 201, "{path}");
        answer.json::<serde_json::Value>().await.unwrap()
    };
    let session = post("/app/uploads/initiate", json!({"file_name": "a.txt", "file_size": 5})).await;
    let upload_url = session["upload_url"].as_str().unwrap();
    assert!(upload_url.starts_with("http://[::1]:"), "{upload_url}");
    let put = embedded.http.put(upload_url).body("hello");
    let put = put.header("content-type", session["upload_headers"]["content-type"].as_str().unwrap());
    assert_eq!(put.send().await.unwrap().status(), 200);
    post("/app/assets/upload/complete", json!({"upload_session_id": session["upload_session_id"]})).await;

    // A command beside the server reaches the store at the same address.
    let mut tenant = embedded.command(&["tenant", "create", "beta"]);
    let made = tenant.env("QUAYMASTER_EMBEDDED__HOST", "::1").output().await.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
