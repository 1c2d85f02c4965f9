//! The server under test: in this process, where its clock can be moved, or as the real program, where it can be killed.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use quaymaster::engine::Engine;
use quaymaster::input::{Slug, Text as _};
use quaymaster::settings::Settings;
use quaymaster::start::Running;
use sea_orm::ConnectionTrait;
use tokio::process::{Child, Command};
use uuid::Uuid;

use super::{By, TestApp};

pub enum Server {
    InProcess(Box<Running>),
    Program(Child),
}

/// The embedded store by itself, so that a proxy fits between it and the server.
pub struct EmbeddedStore {
    pub addr: SocketAddr,
    pub access_key_id: String,
    pub secret_access_key: String,
    _server: embedded_s3::Server,
}

impl EmbeddedStore {
    pub async fn start(root: &Path) -> Self {
        let (access_key_id, secret_access_key) = ("STORIES".to_owned(), Uuid::new_v4().to_string());
        let server = embedded_s3::start(embedded_s3::Config {
            root: root.to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            region: "us-east-1".to_owned(),
            access_key_id: access_key_id.clone(),
            secret_access_key: secret_access_key.clone(),
            ..embedded_s3::Config::default()
        })
        .await
        .unwrap();
        Self { addr: server.addr(), access_key_id, secret_access_key, _server: server }
    }
}

impl TestApp {
    /// From here on the server is the real program, in a process of its own; its clock is the wall's.
    pub async fn run_the_program(&self) {
        self.stop_server().await;
        self.program.store(true, Ordering::Relaxed);
        self.start_server().await;
    }

    /// `kill -9`: nothing is finished, nothing is said.
    pub async fn kill_server(&self) {
        match self.server.lock().await.take() {
            Some(Server::Program(mut child)) => child.kill().await.unwrap(),
            Some(Server::InProcess(_)) | None => panic!("only the program can be killed, and only while it runs"),
        }
    }

    /// What the server in this process works with; of the program's, a second one on the same back ends.
    pub async fn engine(&self) -> Engine {
        if let Some(Server::InProcess(running)) = &*self.server.lock().await {
            return running.engine.clone();
        }
        self.another_engine().await
    }

    pub async fn start_server(&self) {
        let env = self.env.lock().unwrap().clone();
        let (server, base) = if self.program.load(Ordering::Relaxed) {
            let (child, port) = program(env, self.folder.path()).await;
            (Server::Program(child), format!("http://127.0.0.1:{port}"))
        } else {
            let settings = Settings::parse(None, env.into_iter().chain([("PORT".to_owned(), "0".to_owned())])).unwrap();
            let running = quaymaster::start::start(settings, self.clock.clone()).await.unwrap();
            let base = format!("http://{}", running.addr);
            (Server::InProcess(Box::new(running)), base)
        };
        *self.base.lock().unwrap() = base;
        *self.server.lock().await = Some(server);
    }

    /// In good order: what runs is finished first.
    pub async fn stop_server(&self) {
        match self.server.lock().await.take() {
            Some(Server::InProcess(running)) => running.stop().await,
            Some(Server::Program(mut child)) => {
                let pid = child.id().expect("nobody has waited for it yet").to_string();
                Command::new("kill").args(["-TERM", &pid]).status().await.unwrap();
                assert!(child.wait().await.unwrap().success(), "the server does not end well on SIGTERM");
            }
            None => {}
        }
    }

    /// Database and store once more, as a second replica has them, or a command beside the server; on the same clock.
    pub async fn another_engine(&self) -> Engine {
        self.engine_of(self.env()).await
    }

    /// The same on a line of its own, which is whole while the story cuts the server's.
    pub async fn another_engine_past_the_line(&self) -> Engine {
        let mut env = self.env();
        env.insert("DATABASE_URL".to_owned(), self.database.past_the_line());
        self.engine_of(env).await
    }

    async fn engine_of(&self, env: BTreeMap<String, String>) -> Engine {
        let settings = Settings::parse(None, env).unwrap();
        Engine { clock: self.clock.clone(), ..Box::pin(quaymaster::start::open(settings)).await.unwrap() }
    }

    /// A second replica beside the server, on the same back ends and the same clock. Whoever starts it stops it.
    pub async fn another_server(&self) -> Running {
        let env = self.env().into_iter().chain([("PORT".to_owned(), "0".to_owned())]);
        let settings = Settings::parse(None, env).unwrap();
        Box::pin(quaymaster::start::start(settings, self.clock.clone())).await.unwrap()
    }

    /// Runs `pass` in a process of its own, for a story that kills it: nobody waits for its end.
    pub fn pass_to_kill(&self, pass: &str) -> Child {
        let env = self.env.lock().unwrap().clone();
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kit::passes::child", "--ignored", "--test-threads=1"])
            .env_clear()
            .envs(env)
            .env(super::passes::PASS, pass)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// Runs a command of the program beside the server, with the server's settings.
    pub async fn command(&self, words: &[&str]) -> Output {
        let env = self.env.lock().unwrap().clone();
        let mut command = Command::new(env!("CARGO_BIN_EXE_quaymaster"));
        command.args(words).env_clear().envs(env).kill_on_drop(true).output().await.unwrap()
    }

    /// Gives a tenant another bucket, for which there is no verb: whoever does this sees to the bucket, too. A story ends
    /// with `None`, as the tenant was made.
    pub async fn move_tenant(&self, slug: &str, bucket: Option<&str>) {
        let bucket = bucket.map_or_else(|| "NULL".to_owned(), |bucket| format!("'{bucket}'"));
        let sql = format!("UPDATE tenant SET bucket = {bucket} WHERE slug = '{slug}'");
        self.database.rows.execute_unprepared(&sql).await.unwrap();
    }

    pub(super) async fn create_tenant(&self, slug: &str, brands: &[&str]) -> (Uuid, BTreeMap<String, Uuid>) {
        let server = self.server.lock().await;
        let Some(Server::InProcess(running)) = &*server else { panic!("tenants are made before the program runs") };
        let slug_of = |name: &str| Slug::parse(name).unwrap();
        let brands: Vec<_> = brands.iter().map(|brand| slug_of(brand)).collect();
        let created =
            quaymaster::tenant::create(&running.engine, &By::Command, &slug_of(slug), &brands, None).await.unwrap();
        (created.tenant_id.0, created.brands.into_iter().map(|(slug, id)| (slug, id.0)).collect())
    }
}

async fn program(env: BTreeMap<String, String>, folder: &Path) -> (Child, u16) {
    let port = free_port();
    let log = folder.join("server.log");
    let stderr = std::fs::File::options().create(true).append(true).open(&log).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_quaymaster"))
        .arg("serve")
        .env_clear()
        .envs(env)
        .env("PORT", port.to_string())
        .stderr(Stdio::from(stderr))
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none() && Instant::now() < deadline, "{}", std::fs::read_to_string(&log).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (child, port)
}

/// One that nobody listens on just now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
