//! Combines completions that wait at the same time into one request, so that each of many small files costs little.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::error::Error;
use super::wire::Asset;

/// The server's limit on the sessions of one batch.
const SESSIONS_MAX: usize = 1_000;
/// Requests in flight at a time: a request that the store delays must not delay all files.
const REQUESTS_MAX: usize = 4;

/// How long a request waits for further sessions if more are to come. Only one request waits at a time; otherwise they would
/// share the sessions.
const GATHER: Duration = Duration::from_millis(100);

type Answer = Result<Asset, Error>;

pub struct Completions {
    /// Sessions to complete, each with the sender to the caller that waits for it.
    waiting: Mutex<Vec<(String, oneshot::Sender<Answer>)>>,
    /// One permit for each request in flight. Sessions that come meanwhile go with the next request.
    turns: Semaphore,
    gathering: tokio::sync::Mutex<()>,
}

impl Default for Completions {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            turns: Semaphore::new(REQUESTS_MAX),
            gathering: tokio::sync::Mutex::default(),
        }
    }
}

impl Completions {
    /// Completes one session. The caller that gets a turn calls `ask` for all sessions that wait, and `ask` returns their
    /// answers in the same order. `more_to_come`: other files are being sent now.
    pub async fn complete(
        &self,
        session_id: &str,
        more_to_come: bool,
        ask: impl AsyncFn(&[String]) -> Result<Vec<Answer>, Error>,
    ) -> Answer {
        loop {
            let (sender, mut answer) = oneshot::channel();
            self.waiting().push((session_id.to_owned(), sender));
            loop {
                // The request of another caller may include this session, and be answered before there is a turn.
                let (gathering, turn) = tokio::select! {
                    biased;
                    answered = &mut answer => match answered {
                        Ok(answered) => return answered,
                        // The caller whose request included it was dropped before there was an answer.
                        Err(_) => break,
                    },
                    both = self.turn() => both,
                };
                if more_to_come {
                    tokio::time::sleep(GATHER).await;
                }
                let taken = self.take();
                drop(gathering);
                let (sessions, senders): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
                if sessions.is_empty() {
                    // The request of another caller includes it.
                    drop(turn);
                    match answer.await {
                        Ok(answered) => return answered,
                        Err(_) => break,
                    }
                }
                let answers = match ask(&sessions).await {
                    Ok(answers) if answers.len() == sessions.len() => answers,
                    Ok(answers) => {
                        let why = format!("{} results for {} sessions", answers.len(), sessions.len());
                        vec![Err(Error::UnexpectedAnswer(why)); sessions.len()]
                    }
                    Err(error) => vec![Err(error); sessions.len()],
                };
                for (sender, answered) in senders.into_iter().zip(answers) {
                    let _ = sender.send(answered); // no receiver if the file was given up
                }
            }
        }
    }

    /// Acquires both in this order, so that no caller keeps a turn while another one gathers.
    async fn turn(&self) -> (tokio::sync::MutexGuard<'_, ()>, SemaphorePermit<'_>) {
        let gathering = self.gathering.lock().await;
        (gathering, self.turns.acquire().await.expect("the semaphore is never closed"))
    }

    /// Takes the next sessions, as many as fit into one request. Drops those that no caller waits for any more.
    fn take(&self) -> Vec<(String, oneshot::Sender<Answer>)> {
        let mut waiting = self.waiting();
        waiting.retain(|(_, sender)| !sender.is_closed());
        let fit = waiting.len().min(SESSIONS_MAX);
        waiting.drain(..fit).collect()
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<(String, oneshot::Sender<Answer>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::future::pending;
    use std::time::Duration;

    use futures_util::future::{join_all, join3};
    use serde_json::json;
    use tokio::time::timeout;

    use super::*;
    use crate::cli::push::wire::AssetFacts;

    fn asset(id: &str) -> Asset {
        let facts = AssetFacts {
            asset_id: id.to_owned(),
            file_size: 1,
            etag: None,
            checksum_sha256: None,
            checksum_verified: false,
        };
        Asset { shown: json!({}), facts }
    }

    /// Completes `sessions` at once. Returns their answers and the sizes of the requests.
    async fn all(sessions: Vec<String>) -> (Vec<Answer>, Vec<usize>) {
        let completions = Completions::default();
        let requests = Mutex::new(Vec::new());
        let ask = async |sessions: &[String]| {
            requests.lock().unwrap().push(sessions.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
            let answer = |session: &String| match session.as_str() {
                "7" => Err(Error::Completed),
                id => Ok(asset(id)),
            };
            Ok(sessions.iter().map(answer).collect())
        };
        let answers = join_all(sessions.iter().map(|session| completions.complete(session, false, ask))).await;
        (answers, requests.into_inner().unwrap())
    }

    #[tokio::test]
    async fn those_that_wait_go_together_and_each_gets_its_own_answer() {
        let (answers, requests) = all((0..2_500).map(|n: usize| n.to_string()).collect()).await;
        for (n, answer) in answers.iter().enumerate() {
            match answer {
                Ok(asset) => assert_eq!(asset.facts.asset_id, n.to_string()),
                Err(error) => assert!(n == 7 && matches!(error, Error::Completed), "{n}: {error}"),
            }
        }
        assert!(requests.iter().all(|size| (1..=SESSIONS_MAX).contains(size)), "{requests:?}");
        // The first sessions get a turn each; those that come meanwhile go by the thousand.
        assert!(requests.len() <= REQUESTS_MAX + 3, "{requests:?}");
    }

    #[tokio::test]
    async fn a_request_that_is_held_up_holds_up_no_other_file() {
        let completions = Completions::default();
        let (never, soon) = (
            async |_: &[String]| pending().await,
            async |sessions: &[String]| Ok(sessions.iter().map(|session| Ok(asset(session))).collect()),
        );
        let stuck = timeout(Duration::from_secs(10), completions.complete("1", false, never));
        let other = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            completions.complete("2", false, soon).await
        };
        tokio::select! {
            _ = stuck => panic!("it has no answer"),
            other = other => assert_eq!(other.unwrap().facts.asset_id, "2"),
        }
    }

    #[tokio::test]
    async fn whoever_goes_away_takes_nobody_along() {
        let completions = Completions::default();
        let ask = async |sessions: &[String]| {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(sessions.iter().map(|session| Ok(asset(session))).collect())
        };
        let never = async |_: &[String]| pending().await;
        // Both wait when the caller whose request never ends gets its turn. Its request includes the other session, and is
        // given up.
        let all_turns = completions.turns.acquire_many(REQUESTS_MAX as u32).await.unwrap();
        let given_up = timeout(Duration::from_millis(200), completions.complete("1", false, never));
        let other = completions.complete("2", false, ask);
        let begin = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(all_turns);
        };
        let (given_up, other, ()) = join3(given_up, other, begin).await;
        assert!(given_up.is_err());
        assert_eq!(other.unwrap().facts.asset_id, "2");
    }
}
