use super::Wrong;
use super::text::{is_line, line, text};

/// The longest ETag, in Unicode scalars, with its quotes.
const CHARS_MAX: usize = 256;

text! {
    /// The ETag of a part as the store has told a client, with or without quotes: 1 to 256 characters, none of them a
    /// control character.
    Etag,
    line("etag", CHARS_MAX),
    check
}

fn check(text: &str) -> Result<(), Wrong> {
    is_line(text, CHARS_MAX)
}

/// A part that a client says it has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPart {
    /// As the client numbers it, from 1.
    pub number: i64,
    pub etag: Etag,
}
