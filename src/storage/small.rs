//! Objects of a few bytes that the server writes and reads itself.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;

use super::client::Storage;
use super::error::{Error, ErrorKind, Op};
use super::key::Location;

/// Time limit for reading the whole of a small object.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

impl Storage {
    /// Puts a JSON object unless there is one already. Stores that do not support this condition overwrite it: read it back.
    ///
    /// # Errors
    /// None if there is one already; [`Self::read`] shows that.
    pub async fn put_if_absent(&self, at: &Location, json: &[u8]) -> Result<(), Error> {
        let request = || {
            let request = self.0.client.put_object().bucket(&at.bucket).key(&at.key).content_type("application/json");
            request.body(ByteStream::from(json.to_vec()))
        };
        match self.call(Op::Put, || request().if_none_match("*").send()).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind == ErrorKind::Changed || error.code == "ConditionalRequestConflict" => Ok(()),
            Err(error) if error.code == "NotImplemented" => self.call(Op::Put, || request().send()).await.map(drop),
            Err(error) => Err(error),
        }
    }

    /// Tests whether the store accepts writes: overwrites a few bytes under a key of their own, with one attempt and within
    /// two seconds.
    ///
    /// # Errors
    /// The errors that a client's PUT would meet.
    pub async fn try_write(&self, bucket: &str) -> Result<(), Error> {
        let Location { bucket, key } = Location::probe(bucket);
        let request = || self.0.client.put_object().bucket(&bucket).key(&key).body(ByteStream::from_static(b"{}"));
        self.in_time(Op::Ready, || request().send()).await
    }

    /// Returns the whole content of an object of up to `max` bytes.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none; [`ErrorKind::Invalid`] if it is larger.
    pub async fn read(&self, at: &Location, max: i64) -> Result<Vec<u8>, Error> {
        let op = Op::Get;
        let answer = self.call(op, || self.0.client.get_object().bucket(&at.bucket).key(&at.key).send()).await?;
        if answer.content_length().is_none_or(|length| length > max) {
            return Err(Error { op, kind: ErrorKind::Invalid, code: format!("more than {max} bytes at {}", at.key) });
        }
        match tokio::time::timeout(READ_TIMEOUT, answer.body.collect()).await {
            Ok(Ok(bytes)) => Ok(bytes.to_vec()),
            Ok(Err(_)) => Err(Error::nonsense(op, "the answer broke off or could not be read")),
            Err(_) => Err(Error { op, kind: ErrorKind::TimedOut, code: "no answer in time".to_owned() }),
        }
    }
}
