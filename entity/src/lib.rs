//! The tables, one file each, and the ids of their rows as types.
//!
//! Every row that belongs to a tenant has the tenant's id first in its primary key, so that no lookup by a bare id
//! can be written by accident.

pub mod actor;
pub mod asset;
pub mod brand;
pub mod deployment;
pub mod feed;
pub mod id;
pub mod job;
pub mod operator_action;
pub mod operator_chain;
pub mod pass_run;
pub mod pruned_places;
pub mod schedule;
pub mod tenant;
pub mod tenant_usage;
pub mod upload_event;
pub mod upload_session;
pub mod upload_tombstone;

pub use actor::ActorKind;
pub use id::{AssetId, BrandId, JobId, RunId, SessionId, TenantId};
pub use job::JobKind;
pub use pass_run::Pass;
