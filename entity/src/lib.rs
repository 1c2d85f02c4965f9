//! The tables, one file each, and the ids that lead to their rows.
//!
//! Every row that belongs to a tenant has the tenant's id first in its primary key, so that no lookup by a bare id
//! can be written by accident.

pub mod asset;
pub mod brand;
pub mod id;
pub mod tenant;
pub mod upload_event;
pub mod upload_session;

pub use id::{AssetId, BrandId, SessionId, TenantId};
