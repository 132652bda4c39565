//! The session table.
