//! One file from its session to its asset.

use std::collections::{BTreeMap, HashMap};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::SemaphorePermit;

use super::Push;
use super::error::Error;
use super::open::{Item, open};
use super::plan::{self, Held, Md5Sum, Part, Plan};
use super::progress::FileBar;
use super::report::{Done, Outcome, Verified, shown};
use super::scan::LocalFile;
use super::store::{CHECKSUM, Receipt, md5_of};
use super::urls::Urls;
use super::wire::{Asset, Session, Status, UploadType};

/// How often a part is sent if its URL is refused or its bytes arrive garbled, and how often a file is completed if the
/// server finds it incomplete.
const ROUNDS: u32 = 3;
/// Parts of an earlier run that are read for comparison at a time.
const READ_AHEAD: usize = 2;

/// Sends what the store lacks and completes the session. If the session turns out to be over, opens a new one, once.
pub async fn upload(push: &Push, mut item: Item, mut session: Session) -> Outcome {
    let mut transfer = Transfer {
        push,
        sending: Some(sending(push).await),
        file: item.file.clone(),
        sha256: item.identity.sha256.clone(),
        bar: push.progress.start(&item.file.name, item.file.size),
        session_id: String::new(),
        sent_bytes: 0,
        sent_parts: 0,
        md5s: HashMap::new(),
    };
    let mut renewed = false;
    let result = loop {
        transfer.session_id.clone_from(&session.upload_session_id);
        match transfer.finish(&session).await {
            Err(Error::SessionOver(why)) if !renewed => {
                renewed = true;
                push.progress
                    .note(&format!("{}: the upload session {why}; starting a new one", shown(&item.file.path)));
                transfer.give_up_session().await;
                item.attempt += 1;
                let opened = open(push, vec![((), item)]).await.into_iter().next();
                let ((), same, new) = opened.expect("one file in, one file out");
                item = same;
                match new {
                    Ok(new) => session = new,
                    Err(error) => break Err(error),
                }
            }
            Err(Error::Changed) => {
                transfer.give_up_session().await;
                break Err(Error::Changed);
            }
            result => break result,
        }
    };
    Outcome {
        path: item.file.path,
        size: Some(item.file.size),
        session_id: Some(transfer.session_id),
        sent_bytes: transfer.sent_bytes,
        sent_parts: transfer.sent_parts,
        result,
    }
}

async fn sending(push: &Push) -> SemaphorePermit<'_> {
    push.sending.acquire().await.expect("the semaphore is never closed")
}

struct Transfer<'a> {
    push: &'a Push,
    /// `None` while the file waits for its asset, so that another file can be sent.
    sending: Option<SemaphorePermit<'a>>,
    file: LocalFile,
    sha256: Option<String>,
    bar: FileBar,
    session_id: String,
    /// Bytes that the store took in this run.
    sent_bytes: u64,
    sent_parts: u32,
    /// MD5s of parts of the current session that this run has read. They stay valid: a file that changes is not completed.
    md5s: HashMap<u32, Md5Sum>,
}

/// What is known about the bytes in the store before the session is completed.
struct Sent {
    /// For the server to compare; `None` if an ETag is not known.
    parts: Option<Vec<(u32, String)>>,
    proof: Proof,
}

enum Proof {
    /// The store has compared the bytes with their SHA-256.
    Sha256,
    /// The ETag of the object, if it holds what was sent.
    Etag(String),
    None,
}

impl Transfer<'_> {
    async fn finish(&mut self, session: &Session) -> Result<Done, Error> {
        if session.status == Status::Completed {
            return self.adopt(session).await;
        }
        let mut round = 1;
        loop {
            if self.sending.is_none() {
                self.sending = Some(sending(self.push).await);
            }
            let sent = match session.upload_type {
                UploadType::Direct => self.send_whole(session).await,
                UploadType::Multipart => self.send_parts().await,
            };
            self.sending = None;
            let result = match sent {
                Ok(sent) => {
                    self.file.must_be(&tokio::fs::metadata(&self.file.path).await?)?;
                    let more_to_come = self.push.is_sending();
                    let asset = self.push.api.complete(&self.session_id, sent.parts.as_deref(), more_to_come).await;
                    asset.map(|asset| (asset, sent.proof))
                }
                Err(error) => Err(error),
            };
            match result {
                Ok((asset, proof)) => {
                    let verified = verify(&asset, &self.file, self.sha256.as_deref(), &proof)?;
                    return Ok(Done { asset: asset.shown, already: false, verified });
                }
                Err(Error::Completed) => return self.adopt(session).await,
                // The server looks again at what the store holds, and so does the next round.
                Err(error) if round < ROUNDS && wants_another_round(&error) => round += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the asset of a session that an earlier run or another one has completed.
    async fn adopt(&self, session: &Session) -> Result<Done, Error> {
        let asset = self.push.api.complete(&self.session_id, None, self.push.is_sending()).await?;
        let compared =
            session.upload_type == UploadType::Direct && self.sha256.is_some() && asset.facts.checksum_sha256.is_some();
        let proof = if compared { Proof::Sha256 } else { Proof::None };
        let verified = verify(&asset, &self.file, self.sha256.as_deref(), &proof)?;
        self.bar.set_there(self.file.size);
        Ok(Done { asset: asset.shown, already: self.sent_parts == 0, verified })
    }

    async fn send_whole(&mut self, session: &Session) -> Result<Sent, Error> {
        self.bar.set_there(0);
        let headers = session.direct.upload_headers.iter().flatten();
        let checked = headers.into_iter().any(|(name, _)| name.eq_ignore_ascii_case(CHECKSUM));
        let urls = Urls::of_direct(&self.push.api, &self.session_id, session.direct.clone());
        let part = Part { number: 1, offset: 0, size: self.file.size };
        let receipt = put(self.push, &self.file, &urls, part, &self.bar).await?;
        self.sent_bytes += part.size;
        self.sent_parts += 1;
        let proof = match receipt.md5 {
            _ if checked => Proof::Sha256,
            Some(md5) if receipt.etag.as_deref().and_then(plan::md5_form) == Some(md5) => Proof::Etag(hex::encode(md5)),
            _ => Proof::None,
        };
        Ok(Sent { parts: None, proof })
    }

    /// Sends the parts that the store lacks, and those whose bytes turn out to differ from the file.
    async fn send_parts(&mut self) -> Result<Sent, Error> {
        let resume = self.push.api.resume(&self.session_id).await?.still_open()?;
        let plan = Plan::of(&resume.session, self.file.size)?;
        let mut held = plan.held(resume.uploaded_parts);
        self.bar.set_there(plan.parts().filter(|part| held.contains_key(&part.number)).map(|part| part.size).sum());
        self.read_held(plan, &mut held).await?;
        let mut rounds = 0;
        loop {
            for doubtful in plan::doubtful(&held) {
                held.remove(&doubtful);
            }
            let missing = plan.missing(&held);
            if missing.is_empty() {
                break;
            }
            if rounds == ROUNDS {
                return Err(Error::Corrupt(format!("{} parts arrive with other bytes than were sent", missing.len())));
            }
            rounds += 1;
            let there = self.file.size - missing.iter().map(|part| part.size).sum::<u64>();
            self.bar.set_there(there);
            self.send_missing(missing, &mut held).await?;
        }
        let etags = held.iter().map(|(&number, part)| Some((number, part.etag.clone()?)));
        let proof = match plan::composite_etag(&held) {
            Some(etag) if plan::speaks_md5(&held) => Proof::Etag(etag),
            _ => Proof::None,
        };
        Ok(Sent { parts: etags.collect(), proof })
    }

    /// Hashes the file's bytes of parts that are in the store already and whose ETags may be MD5s, to check whether they
    /// were sent from these bytes.
    async fn read_held(&mut self, plan: Plan, held: &mut BTreeMap<u32, Held>) -> Result<(), Error> {
        let speaking = |part: &Part| held.get(&part.number)?.etag.as_deref().and_then(plan::md5_form);
        let unread: Vec<Part> =
            plan.parts().filter(|part| speaking(part).is_some() && !self.md5s.contains_key(&part.number)).collect();
        let file = &self.file;
        let reads = stream::iter(unread).map(async |part| Ok::<_, Error>((part.number, md5_of(file, part).await?)));
        let md5s: Vec<_> = reads.buffer_unordered(READ_AHEAD).try_collect().await?;
        self.md5s.extend(md5s);
        for (number, part) in held {
            part.md5 = self.md5s.get(number).copied();
        }
        Ok(())
    }

    async fn send_missing(&mut self, missing: Vec<Part>, held: &mut BTreeMap<u32, Held>) -> Result<(), Error> {
        let numbers = missing.iter().map(|part| part.number).collect();
        let urls = Urls::of_parts(&self.push.api, &self.session_id, numbers);
        let (push, file, bar, urls) = (self.push, &self.file, &self.bar, &urls);
        let puts = stream::iter(missing)
            .map(async |part| Ok::<_, Error>((part, put(push, file, urls, part, bar).await?)))
            .buffer_unordered(push.parallel);
        let mut puts = std::pin::pin!(puts);
        while let Some((part, receipt)) = puts.try_next().await? {
            self.sent_bytes += part.size;
            self.sent_parts += 1;
            self.md5s.extend(receipt.md5.map(|md5| (part.number, md5)));
            held.insert(part.number, Held { etag: receipt.etag, md5: receipt.md5 });
        }
        Ok(())
    }

    /// Cancels this session, and forgets what was read for it. Best effort: the server also ends abandoned sessions.
    async fn give_up_session(&mut self) {
        self.md5s.clear();
        self.bar.set_there(0);
        match self.push.api.cancel(&self.session_id).await {
            Ok(()) | Err(Error::SessionOver(_) | Error::Completed) => {}
            Err(error) => self.push.progress.note(&format!("cannot cancel session {}: {error}", self.session_id)),
        }
    }
}

/// Sends one part to the store. Retries through outages, and with a new URL if one is refused.
async fn put(push: &Push, file: &LocalFile, urls: &Urls<'_>, part: Part, bar: &FileBar) -> Result<Receipt, Error> {
    let _slot = push.puts.acquire().await.expect("the semaphore is never closed");
    let mut round = 1;
    loop {
        let attempt = async || {
            let url = urls.get(part.number).await?;
            let result = push.store.put(&url.url, &url.headers, file, part, bar).await;
            if result.is_err() {
                urls.forget(url.fetch).await;
            }
            result
        };
        match push.store.retry.run(attempt).await {
            Ok(receipt) if is_garbled(&receipt) => {
                bar.take_back(part.size);
                if round == ROUNDS {
                    return Err(Error::Corrupt(format!(
                        "part {} arrives with other bytes than were sent",
                        part.number
                    )));
                }
            }
            // An expired URL is answered 403 by AWS and 400 by Garage.
            Err(Error::Store { status: 400 | 401 | 403, .. }) if round < ROUNDS => {}
            result => return result,
        }
        round += 1;
    }
}

/// Whether the store answers with an MD5 that differs from that of the bytes sent.
fn is_garbled(receipt: &Receipt) -> bool {
    let answered = receipt.etag.as_deref().and_then(plan::md5_form);
    matches!((answered, receipt.md5), (Some(answered), Some(sent)) if answered != sent)
}

/// Whether the server misses bytes, or the store no longer knows the upload (which the server finds out in the next round).
fn wants_another_round(error: &Error) -> bool {
    let incomplete = |code: &str| matches!(code, "upload-incomplete" | "parts-mismatch");
    matches!(error, Error::Server(problem) if incomplete(&problem.code))
        || matches!(error, Error::Store { status: 404, .. })
}

/// Checks that the asset is this file.
fn verify(asset: &Asset, file: &LocalFile, sha256: Option<&str>, proof: &Proof) -> Result<Verified, Error> {
    let facts = &asset.facts;
    let differs = |what: &str, theirs: &str, ours: &str| {
        let id = &facts.asset_id;
        Err(Error::Corrupt(format!("asset {id} has {what} {theirs}, this file has {ours}; remove the asset")))
    };
    if facts.file_size != file.size {
        return differs("file_size", &facts.file_size.to_string(), &file.size.to_string());
    }
    if let (Some(theirs), Some(ours)) = (&facts.checksum_sha256, sha256)
        && !theirs.eq_ignore_ascii_case(ours)
    {
        return differs("checksum_sha256", theirs, ours);
    }
    match (proof, &facts.etag) {
        // A store may accept a checksum without comparing anything.
        (Proof::Sha256, _) if facts.checksum_verified => Ok(Verified::Sha256),
        (Proof::Etag(ours), Some(theirs)) if ours == theirs => Ok(Verified::Md5),
        // The same form with another sum. An ETag of another form is not an MD5 and says nothing.
        (Proof::Etag(ours), Some(theirs)) if is_comparable(ours, theirs) => differs("etag", theirs, ours),
        (Proof::Sha256 | Proof::Etag(_) | Proof::None, _) => Ok(Verified::Size),
    }
}

/// Whether both are MD5s with the same number of parts, or both without one.
fn is_comparable(ours: &str, theirs: &str) -> bool {
    let form = |etag: &str| {
        let (sum, parts) = etag.split_once('-').map_or((etag, None), |(sum, parts)| (sum, Some(parts.to_owned())));
        plan::md5_form(sum).map(|_| parts)
    };
    form(theirs).is_some() && form(ours) == form(theirs)
}

#[cfg(test)]
#[path = "upload_test.rs"]
mod tests;
