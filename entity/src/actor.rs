use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

/// The kind of actor that a record names. The name alone is ambiguous: a user may be called `system` or `cli`.
///
/// Rows written before kinds were introduced have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum, Serialize, Deserialize)]
#[sea_orm(rs_type = "String", db_type = "Text")]
#[serde(rename_all = "lowercase")]
pub enum ActorKind {
    /// A tenant's user, named by their token's `sub`.
    #[sea_orm(string_value = "user")]
    User,
    /// An operator, named by their token's `sub`.
    #[sea_orm(string_value = "operator")]
    Operator,
    /// A command-line command.
    #[sea_orm(string_value = "command")]
    Command,
    /// The server itself.
    #[sea_orm(string_value = "system")]
    System,
}

impl ActorKind {
    /// Returns the name used in the database and in the event chains.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Operator => "operator",
            Self::Command => "command",
            Self::System => "system",
        }
    }
}
