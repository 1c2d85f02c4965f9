//! An S3 endpoint over a folder.
use std::{net::SocketAddr, path::PathBuf, time::Duration};
pub struct Config {
    pub root: PathBuf,
    pub listen: SocketAddr,
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: String,
    pub buckets: Vec<String>,
}
#[derive(Debug, thiserror::Error)]
#[error("not there")]
pub struct Error;
#[derive(Debug)]
pub struct Server;
pub async fn start(_: Config) -> Result<Server, Error> {
    Err(Error)
}
impl Server {
    pub fn addr(&self) -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }
    pub async fn shutdown(self, _: Duration) {}
}
