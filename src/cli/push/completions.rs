//! Completions that wait at the same time go in one request: of many small files, each costs little more than its place.

use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use super::error::Error;
use super::wire::Asset;

/// The server's limit on the sessions of one batch.
const SESSIONS_MAX: usize = 1_000;
/// Parts that one request names at most: about 4 MiB of the 8 that the server reads.
const PARTS_MAX: usize = 50_000;

/// A session that somebody wants completed, with the ETags of its parts where they are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub session_id: String,
    pub parts: Option<Vec<(u32, String)>>,
}

impl Wanted {
    fn parts(&self) -> usize {
        self.parts.as_ref().map_or(0, Vec::len)
    }
}

type Answer = Result<Asset, Error>;

#[derive(Default)]
pub struct Completions {
    waiting: Mutex<Vec<(Wanted, oneshot::Sender<Answer>)>>,
    /// Whose request is under way; those that come meanwhile are the next one's.
    turn: tokio::sync::Mutex<()>,
}

impl Completions {
    /// Completes one session by `ask`, which answers for all that wait, in their order. Whoever has the turn asks for the
    /// others too.
    pub async fn complete(&self, wanted: Wanted, ask: impl AsyncFn(&[Wanted]) -> Result<Vec<Answer>, Error>) -> Answer {
        loop {
            let (sender, mut answer) = oneshot::channel();
            self.waiting().push((wanted.clone(), sender));
            let _turn = self.turn.lock().await;
            match answer.try_recv() {
                Ok(answered) => return answered,
                // Whoever had taken it along went away before there was an answer.
                Err(oneshot::error::TryRecvError::Closed) => continue,
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            let (sessions, senders): (Vec<_>, Vec<_>) = self.take().into_iter().unzip();
            let answers = match ask(&sessions).await {
                Ok(answers) if answers.len() == sessions.len() => answers,
                Ok(answers) => {
                    let why = format!("{} results for {} sessions", answers.len(), sessions.len());
                    vec![Err(Error::Nonsense(why)); sessions.len()]
                }
                Err(error) => vec![Err(error); sessions.len()],
            };
            for (sender, answered) in senders.into_iter().zip(answers) {
                let _ = sender.send(answered); // nobody waits for a file that was given up
            }
            // Of more than one request takes, this one may not have been among the first.
            if let Ok(answered) = answer.try_recv() {
                return answered;
            }
        }
    }

    /// The next ones, as many as one request takes; those that nobody waits for any more are dropped.
    fn take(&self) -> Vec<(Wanted, oneshot::Sender<Answer>)> {
        let mut waiting = self.waiting();
        waiting.retain(|(_, sender)| !sender.is_closed());
        let mut parts = 0;
        let fit = waiting.iter().take(SESSIONS_MAX).enumerate().take_while(|(index, (wanted, _))| {
            parts += wanted.parts();
            *index == 0 || parts <= PARTS_MAX
        });
        let fit = fit.count();
        waiting.drain(..fit).collect()
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<(Wanted, oneshot::Sender<Answer>)>> {
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

    fn wanted(n: usize, parts: usize) -> Wanted {
        let parts = (parts > 0).then(|| vec![(1, "etag".to_owned()); parts]);
        Wanted { session_id: n.to_string(), parts }
    }

    /// Completes `sessions` at once; answers what each got, and the sizes of the requests.
    async fn all(sessions: Vec<Wanted>) -> (Vec<Answer>, Vec<usize>) {
        let completions = Completions::default();
        let requests = Mutex::new(Vec::new());
        let ask = async |sessions: &[Wanted]| {
            requests.lock().unwrap().push(sessions.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
            let answer = |wanted: &Wanted| match wanted.session_id.as_str() {
                "7" => Err(Error::Completed),
                id => Ok(asset(id)),
            };
            Ok(sessions.iter().map(answer).collect())
        };
        let answers = join_all(sessions.into_iter().map(|wanted| completions.complete(wanted, ask))).await;
        (answers, requests.into_inner().unwrap())
    }

    #[tokio::test]
    async fn those_that_wait_go_together_and_each_gets_its_own_answer() {
        let (answers, requests) = all((0..2_500).map(|n| wanted(n, 0)).collect()).await;
        for (n, answer) in answers.iter().enumerate() {
            match answer {
                Ok(asset) => assert_eq!(asset.facts.asset_id, n.to_string()),
                Err(error) => assert!(n == 7 && matches!(error, Error::Completed), "{n}: {error}"),
            }
        }
        assert!(requests.iter().all(|size| (1..=SESSIONS_MAX).contains(size)), "{requests:?}");
        assert!(requests.len() <= 6, "{requests:?}");
    }

    #[tokio::test]
    async fn long_lists_of_parts_go_in_several_requests() {
        let (answers, requests) = all((10..20).map(|n| wanted(n, 20_000)).collect()).await;
        assert!(answers.iter().all(Result::is_ok));
        assert!(requests.iter().all(|size| *size <= 2), "{requests:?}");
    }

    #[tokio::test]
    async fn whoever_goes_away_takes_nobody_along() {
        let completions = Completions::default();
        let ask = async |sessions: &[Wanted]| {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(sessions.iter().map(|wanted| Ok(asset(&wanted.session_id))).collect())
        };
        let never = async |_: &[Wanted]| pending().await;
        // While the first asks, two come; the second of all takes the third along, and is given up.
        let given_up = timeout(Duration::from_millis(200), completions.complete(wanted(2, 0), never));
        let (first, second, third) =
            join3(completions.complete(wanted(1, 0), ask), given_up, completions.complete(wanted(3, 0), ask)).await;
        assert_eq!(first.unwrap().facts.asset_id, "1");
        assert!(second.is_err());
        assert_eq!(third.unwrap().facts.asset_id, "3");
    }
}
