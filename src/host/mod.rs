//! What surrounds the process: the permissions of its files, files that hold secrets, what the system grants it, the signals
//! that it blocks.
//!
//! It knows nothing of what the server does, nor its configuration: whoever asks says how much of what is needed.

pub(crate) mod file_modes;
pub(crate) mod resources;
pub mod secret_file;
pub(crate) mod signal_mask;
