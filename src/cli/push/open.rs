//! Sessions for files: the ones that an earlier run left, or new ones.
//!
//! There is no look-up. A file's reference is its fingerprint, and the batch has the same name in each run, so announcing a
//! file again finds its session, in any state. A reference stays used after its session was cancelled or failed: the next
//! attempt is announced as `{fingerprint}-2`, and so on.

use super::Push;
use super::error::{Again, Error};
use super::scan::{HASHED_MAX_BYTES, Identity, LocalFile};
use super::wire::{Announcement, Session, Status};

/// Files that one request announces: far fewer than allowed, because nothing is sent before the first answer.
const BATCH_FILES: usize = 128;
/// Maximum bytes that are hashed before the first file of a batch is sent. Keeps this time short, and the batch's URLs
/// fresh.
const BATCH_HASHED_BYTES: u64 = 64 * 1024 * 1024;
/// Maximum number of sessions of one file. After so many cancelled or failed ones, another one would not help.
const ATTEMPTS_MAX: u32 = 100;

/// A file and its identity.
#[derive(Debug)]
pub struct Item {
    pub file: LocalFile,
    pub identity: Identity,
    /// Counted from 1.
    pub attempt: u32,
}

impl Item {
    pub fn new(file: LocalFile, identity: Identity) -> Self {
        Self { file, identity, attempt: 1 }
    }

    fn reference(&self) -> String {
        match self.attempt {
            1 => self.identity.fingerprint.clone(),
            n => format!("{}-{n}", self.identity.fingerprint),
        }
    }

    fn announcement(&self) -> Announcement<'_> {
        Announcement {
            file_name: &self.file.name,
            file_size: self.file.size,
            mime_type: self.file.mime_type(),
            client_reference: self.reference(),
            fingerprint: &self.identity.fingerprint,
            checksum_sha256: self.identity.sha256.as_deref(),
        }
    }
}

/// Cuts the list into batches that one request can announce.
pub fn batches<T>(files: Vec<T>, size: impl Fn(&T) -> u64) -> Vec<Vec<T>> {
    let mut batches: Vec<Vec<T>> = Vec::new();
    let mut hashed = 0;
    for file in files {
        let reads = Some(size(&file)).filter(|&size| size <= HASHED_MAX_BYTES).unwrap_or(0);
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH_FILES && hashed + reads <= BATCH_HASHED_BYTES => {
                batch.push(file);
                hashed += reads;
            }
            _ => {
                batches.push(vec![file]);
                hashed = reads;
            }
        }
    }
    batches
}

/// Opens a session for each file that can have one. Returns the files in any order. Skips sessions that were cancelled or
/// failed; waits and asks again for files that failed temporarily. If the server does not answer or refuses the whole
/// request, no further file of this run is announced.
pub async fn open<K>(push: &Push, items: Vec<(K, Item)>) -> Vec<(K, Item, Result<Session, Error>)> {
    let mut done = Vec::with_capacity(items.len());
    let mut waiting = items;
    let mut pauses = push.api.retry.pauses();
    while !waiting.is_empty() {
        let announced: Vec<_> = waiting.iter().map(|(_, item)| item.announcement()).collect();
        let answers = push.api.initiate_batch(&push.batch, push.brand.as_deref(), &announced).await;
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                push.stop_announcing(&error);
                done.extend(waiting.into_iter().map(|(key, item)| (key, item, Err(error.clone()))));
                return done;
            }
        };
        let mut next = Vec::new();
        let mut busy = Vec::new();
        for ((key, mut item), answer) in waiting.into_iter().zip(answers) {
            match answer.map_err(|problem| Error::Server(Box::new(problem))) {
                Ok(session) => match session.status {
                    Status::Uploading | Status::Completed => done.push((key, item, Ok(session))),
                    Status::Initiating => {
                        busy.push((key, item, Error::UnexpectedAnswer("the session is still being opened".into())));
                    }
                    Status::Cancelled | Status::Failed if item.attempt < ATTEMPTS_MAX => {
                        item.attempt += 1;
                        next.push((key, item));
                    }
                    Status::Cancelled | Status::Failed => {
                        let why = format!("is the {ATTEMPTS_MAX}th of this file that was cancelled or failed");
                        done.push((key, item, Err(Error::SessionOver(why))));
                    }
                },
                Err(error) if error.again() == Again::No => done.push((key, item, Err(error))),
                Err(error) => busy.push((key, item, error)),
            }
        }
        if !busy.is_empty() {
            match pauses.next() {
                Some(pause) => {
                    tokio::time::sleep(pause).await;
                    next.extend(busy.into_iter().map(|(key, item, _)| (key, item)));
                }
                None => done.extend(busy.into_iter().map(|(key, item, error)| (key, item, Err(error)))),
            }
        }
        waiting = next;
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_so_many_files_or_as_many_as_are_soon_read() {
        let sizes = |sizes: Vec<u64>| batches(sizes, |&size| size).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(vec![1; 257]), [128, 128, 1]);
        assert_eq!(sizes(vec![HASHED_MAX_BYTES; 25]), [12, 12, 1]);
        assert_eq!(sizes(vec![u64::MAX; 3]), [3], "large files are not read whole");
        assert!(sizes(vec![]).is_empty());
    }

    #[test]
    fn the_longest_batch_stays_within_what_the_server_reads() {
        let file = LocalFile {
            path: "x".into(),
            name: "\u{10ffff}".repeat(255),
            size: u64::MAX,
            modified: std::time::SystemTime::UNIX_EPOCH,
        };
        let identity = Identity { fingerprint: "f".repeat(64), sha256: Some("a".repeat(64)) };
        let item = Item { file, identity, attempt: ATTEMPTS_MAX };
        let one = serde_json::to_string(&item.announcement()).map(|json| json.len()).unwrap_or(usize::MAX);
        assert!(one * BATCH_FILES < 8 * 1024 * 1024, "{one} bytes a file");
        assert!(item.reference().len() <= 128);
    }
}
