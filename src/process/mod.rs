//! Lanes and handlers.
