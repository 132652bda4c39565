//! The admin HTTP interface.
