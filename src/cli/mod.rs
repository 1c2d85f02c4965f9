//! One file, or one folder, per command.

pub mod push;
