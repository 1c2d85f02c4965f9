//! Listens, and serves requests.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use actix_http::{HttpService, Protocol};
use actix_service::{ServiceFactoryExt as _, fn_service, map_config};
use actix_web::App;
use actix_web::dev::{AppConfig, Server};
use actix_web::error::DispatchError;
use actix_web::middleware::from_fn;
use actix_web::web::Data;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use super::client_address::TrustedProxies;
use super::connection::{self, Connection, Limits};
use super::door::Door;
use super::heavy_work::HeavyWork;
use super::{ServerHandle, fair, framing, in_flight, middleware, native, problem};
use crate::address::{ListenError, resolve};
use crate::engine::Engine;
use crate::threads::ThreadsError;
use crate::token;

/// Why the web door did not open.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the tokens' settings cannot be used")]
    Auth(#[from] token::StartError),
    #[error(transparent)]
    Threads(#[from] ThreadsError),
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;

/// Listens, and serves requests until the handle stops the server.
///
/// This is what `actix_web::HttpServer` does, with [`Connection`]s in place of bare sockets.
///
/// # Errors
/// The address is in use or not one of this machine's, the settings for tokens cannot be used, or the system gives no
/// threads.
pub(crate) async fn serve(
    engine: &Engine,
) -> Result<(SocketAddr, JoinHandle<io::Result<()>>, ServerHandle), StartError> {
    let settings = engine.settings.server.clone();
    let heavy = HeavyWork::new(settings.worker_threads(), engine.db.active())?;
    let door = Data::new(Door::new(&engine.settings, engine.clock.clone(), heavy)?);
    let proxies = TrustedProxies::new(settings.trusted_networks().map_err(token::StartError::Settings)?);
    let limits = Limits::new(&settings, proxies);
    let engine = Data::new(engine.clone());
    let listen = resolve(&settings.host, settings.port).await?;
    let failed = |error| ListenError(listen.to_string(), error);
    let listener = bind(listen).and_then(TcpListener::into_std).map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    let server = Server::build()
        .workers(settings.worker_threads())
        .max_concurrent_connections(settings.max_connections)
        .shutdown_timeout(settings.shutdown_grace_secs)
        .disable_signals();
    let draining = server.graceful_shutdown_signal();
    let server = server
        .listen("http", listener, move || {
            let app = App::new()
                .app_data(engine.clone())
                .app_data(door.clone())
                // Read from the bottom up: the last one is the outermost.
                .wrap(from_fn(middleware::catch_panic))
                .wrap(from_fn(fair::share))
                .wrap(from_fn(middleware::finish_writes))
                .wrap(from_fn(framing::frame))
                .wrap(middleware::cors(&engine.settings.cors))
                .wrap(from_fn(middleware::observe))
                .wrap(from_fn(in_flight::bound))
                .wrap(from_fn(connection::hold))
                .configure(native::routes)
                .default_service(problem::unknown_path());
            let (draining, limits) = (draining.clone(), limits.clone());
            let http = HttpService::build()
                .keep_alive(Duration::from_secs(settings.keep_alive_secs))
                .graceful_shutdown_signal(move || {
                    let draining = draining.clone();
                    async move { draining.notified().await }
                })
                .client_request_timeout(Duration::from_secs(settings.head_timeout_secs))
                .client_disconnect_timeout(connection::LINGER)
                // A waiting request ends when its client disconnects, as behind most proxies: a client that closes
                // only its own half of the connection cannot be told from one that is gone.
                .h1_allow_half_closed(false)
                .on_connect_ext(Connection::introduce)
                .finish(map_config(app, |()| AppConfig::default()));
            fn_service(move |stream| {
                let accepted = Connection::accept(stream, &limits).map_err(DispatchError::Io);
                async move {
                    let connection = accepted?;
                    let peer = connection.peer();
                    Ok((connection, Protocol::Http1, Some(peer)))
                }
            })
            .and_then(http)
        })
        .map_err(failed)?
        .run();
    let handle = server.handle();
    Ok((addr, tokio::spawn(server), handle))
}

/// Binds the address and listens, even while connections of an earlier process to it are still closing.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
