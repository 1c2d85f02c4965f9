//! Objects of a few bytes that the server writes and reads itself.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;

use super::client::Storage;
use super::error::{Error, Kind, Op};
use super::key::Location;

/// A small object is read in whole within this time.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

impl Storage {
    /// Puts a JSON object where none is yet. Stores that know no such condition overwrite: read it back.
    ///
    /// # Errors
    /// None where there is one already: that is for [`Self::read`] to tell.
    pub async fn put_if_absent(&self, at: &Location, json: &[u8]) -> Result<(), Error> {
        let request = || {
            let request = self.0.client.put_object().bucket(&at.bucket).key(&at.key).content_type("application/json");
            request.body(ByteStream::from(json.to_vec()))
        };
        match self.call(Op::Put, || request().if_none_match("*").send()).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind == Kind::Changed || error.code == "ConditionalRequestConflict" => Ok(()),
            Err(error) if error.code == "NotImplemented" => self.call(Op::Put, || request().send()).await.map(drop),
            Err(error) => Err(error),
        }
    }

    /// Puts a few bytes under a key of their own, over those of the last time: whether the store takes writes. Within two
    /// seconds and by one attempt.
    ///
    /// # Errors
    /// What a client's PUT would meet.
    pub async fn try_write(&self, bucket: &str) -> Result<(), Error> {
        let Location { bucket, key } = Location::probe(bucket);
        let request = || self.0.client.put_object().bucket(&bucket).key(&key).body(ByteStream::from_static(b"{}"));
        self.in_time(Op::Ready, || request().send()).await
    }

    /// The whole of an object of up to `max` bytes.
    ///
    /// # Errors
    /// [`Kind::NotFound`] where there is none; [`Kind::Invalid`] where it is larger.
    pub async fn read(&self, at: &Location, max: i64) -> Result<Vec<u8>, Error> {
        let op = Op::Get;
        let answer = self.call(op, || self.0.client.get_object().bucket(&at.bucket).key(&at.key).send()).await?;
        if answer.content_length().is_none_or(|length| length > max) {
            return Err(Error { op, kind: Kind::Invalid, code: format!("more than {max} bytes at {}", at.key) });
        }
        match tokio::time::timeout(READ_TIMEOUT, answer.body.collect()).await {
            Ok(Ok(bytes)) => Ok(bytes.to_vec()),
            Ok(Err(_)) => Err(Error::nonsense(op, "the answer broke off or could not be read")),
            Err(_) => Err(Error { op, kind: Kind::TimedOut, code: "no answer in time".to_owned() }),
        }
    }
}
