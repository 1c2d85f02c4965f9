//! What callers may say, one type a file. A value of such a type exists only if it has passed the check of its type, so a
//! verb that takes one need not check it again, and every door and the command line have the same rules.

mod bucket_name;
mod file_name;
mod idempotency_key;
mod media_type;
mod metadata;
mod part;
mod reason;
mod reference;
mod sha256;
mod slug;
mod statuses;
mod text;
mod title;
mod wrong;

pub use bucket_name::BucketName;
pub use file_name::FileName;
pub use idempotency_key::IdempotencyKey;
pub use media_type::MediaType;
pub use metadata::Metadata;
pub use part::{ClientPart, Etag};
pub use reason::Reason;
pub use reference::Reference;
pub use sha256::Sha256;
pub use slug::Slug;
pub use statuses::Statuses;
pub use text::{Rule, Text};
pub use title::Title;
pub use wrong::Wrong;

/// The rules of all texts, for the published contract.
pub fn rules() -> Vec<Rule> {
    vec![
        BucketName::RULE,
        Etag::RULE,
        FileName::RULE,
        IdempotencyKey::RULE,
        MediaType::RULE,
        Reason::RULE,
        Reference::RULE,
        Sha256::RULE,
        Slug::RULE,
        Statuses::RULE,
        Title::RULE,
    ]
}
