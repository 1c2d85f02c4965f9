use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

/// What sort of actor a record names: a person may bear any name, and the machine's own are names too.
///
/// Rows that were written before there were kinds have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum, Serialize, Deserialize)]
#[sea_orm(rs_type = "String", db_type = "Text")]
#[serde(rename_all = "lowercase")]
pub enum ActorKind {
    /// A tenant's user, by the `sub` of their token.
    #[sea_orm(string_value = "user")]
    User,
    /// An operator, by the `sub` of their token.
    #[sea_orm(string_value = "operator")]
    Operator,
    /// A command beside the server.
    #[sea_orm(string_value = "command")]
    Command,
    /// The server itself.
    #[sea_orm(string_value = "system")]
    System,
}

impl ActorKind {
    /// As the database and the chains of events have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Operator => "operator",
            Self::Command => "command",
            Self::System => "system",
        }
    }
}
