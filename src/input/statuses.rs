use std::borrow::Cow;

use entity::upload_session::Status;

use super::{Rule, Text, Wrong};

/// Names of states, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Vec<Status>);

impl Text for Statuses {
    const RULE: Rule = Rule {
        format: "statuses",
        min_length: None,
        max_length: None,
        pattern: Some(Cow::Borrowed(
            "^(INITIATING|UPLOADING|COMPLETED|FAILED|CANCELLED)(,(INITIATING|UPLOADING|COMPLETED|FAILED|CANCELLED))*$",
        )),
    };

    fn check(text: &str) -> Result<(), Wrong> {
        Self::parse(text).map(drop)
    }

    fn parse(text: impl Into<String>) -> Result<Self, Wrong> {
        let named: Option<Vec<_>> = text.into().split(',').map(Status::named).collect();
        named.map(Self).ok_or(Wrong::NotStatuses)
    }
}

impl Statuses {
    pub fn into_vec(self) -> Vec<Status> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use entity::upload_session::Status;

    use super::Statuses;
    use crate::input::{Text, Wrong};

    #[test]
    fn are_known_names() {
        let both = Statuses::parse("FAILED,UPLOADING").map(Statuses::into_vec);
        assert_eq!(both, Ok(vec![Status::Failed, Status::Uploading]));
        for wrong in ["", "failed", "FAILED,", "FAILED UPLOADING"] {
            assert_eq!(Statuses::parse(wrong), Err(Wrong::NotStatuses), "{wrong:?}");
        }
    }

    #[test]
    fn the_pattern_has_every_state() {
        let names = Status::ALL.map(Status::name).join("|");
        assert_eq!(Statuses::RULE.pattern.as_deref(), Some(format!("^({names})(,({names}))*$").as_str()));
    }
}
