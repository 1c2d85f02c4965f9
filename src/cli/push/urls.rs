//! The presigned URLs of one session: fetched in slices, used while they are valid, then fetched again.

use std::collections::HashMap;
use std::time::Instant;

use tokio::sync::Mutex;

use super::api::Api;
use super::error::Error;
use super::wire::{DirectUrl, PartUrl};

/// Maximum number of URLs that are requested at a time: enough for 2 GiB in parts of 8 MiB, to be sent in the URLs' 15
/// minutes.
const SLICE: usize = 256;

pub struct Urls<'a> {
    api: &'a Api,
    session_id: &'a str,
    kind: Kind,
    state: Mutex<State>,
}

enum Kind {
    Direct,
    /// The parts to send, in ascending order.
    Parts(Vec<u32>),
}

#[derive(Default)]
struct State {
    urls: HashMap<u32, Url>,
    good_until: Option<Instant>,
    fetches: u32,
}

#[derive(Clone)]
pub struct Url {
    pub url: String,
    pub headers: HashMap<String, String>,
    /// The number of the fetch that returned it.
    pub fetch: u32,
}

impl<'a> Urls<'a> {
    pub fn of_parts(api: &'a Api, session_id: &'a str, numbers: Vec<u32>) -> Self {
        Self { api, session_id, kind: Kind::Parts(numbers), state: Mutex::default() }
    }

    /// Starts with the URL that came with the session, if any.
    pub fn of_direct(api: &'a Api, session_id: &'a str, first: DirectUrl) -> Self {
        let good_until = first.good_until;
        let urls = first.part(0).map(|url| HashMap::from([(1, url)])).unwrap_or_default();
        let state = Mutex::new(State { urls, good_until, fetches: 0 });
        Self { api, session_id, kind: Kind::Direct, state }
    }

    /// Returns a URL for this part. Concurrent callers wait for the same slice.
    pub async fn get(&self, number: u32) -> Result<Url, Error> {
        let mut state = self.state.lock().await;
        if state.good_until.is_some_and(|end| end <= Instant::now()) {
            state.urls.clear();
        }
        if let Some(url) = state.urls.get(&number) {
            return Ok(url.clone());
        }
        state.fetches += 1;
        let fetch = state.fetches;
        match &self.kind {
            Kind::Direct => {
                let fresh = self.api.resume(self.session_id).await?.still_open()?.session.direct;
                state.good_until = fresh.good_until;
                state.urls.extend(fresh.part(fetch).map(|url| (1, url)));
            }
            Kind::Parts(numbers) => {
                if fetch > 1 {
                    // Asking for URLs does not count as activity.
                    self.api.activity(self.session_id).await?;
                }
                let (urls, good_until) = self.api.part_urls(self.session_id, slice(numbers, number)).await?;
                state.good_until = good_until;
                state.urls = urls.into_iter().map(|url| (url.part_number, url.of(fetch))).collect();
            }
        }
        let url = state.urls.get(&number).cloned();
        url.ok_or_else(|| Error::UnexpectedAnswer(format!("no URL for part {number}")))
    }

    /// Discards the URLs of this fetch after one of them failed. A store may refuse an expired URL by breaking off the
    /// connection.
    pub async fn forget(&self, fetch: u32) {
        let mut state = self.state.lock().await;
        if state.fetches == fetch {
            state.urls.clear();
        }
    }
}

/// Returns this part and those after it, at most [`SLICE`].
fn slice(numbers: &[u32], from: u32) -> &[u32] {
    let start = numbers.partition_point(|&number| number < from);
    &numbers[start..numbers.len().min(start + SLICE)]
}

impl PartUrl {
    fn of(self, fetch: u32) -> Url {
        Url { url: self.upload_url, headers: self.upload_headers, fetch }
    }
}

impl DirectUrl {
    fn part(self, fetch: u32) -> Option<Url> {
        Some(Url { url: self.upload_url?, headers: self.upload_headers.unwrap_or_default(), fetch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_begins_at_its_part_and_ends_with_the_list() {
        let numbers: Vec<u32> = (1..=1_000).filter(|n| n % 2 == 0).collect();
        assert_eq!(slice(&numbers, 2).len(), SLICE);
        assert_eq!(slice(&numbers, 2)[..2], [2, 4]);
        assert_eq!(slice(&numbers, 996), [996, 998, 1_000]);
        assert!(slice(&numbers, 1_001).is_empty());
    }
}
