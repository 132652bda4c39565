//! File descriptors: a lack of them is found at the start, not by a commit that then fails for good.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::Config;
use crate::limits;

/// Raises this process's limit to what the server may need, where the system permits so much.
///
/// # Errors
/// It does not; nothing has changed.
pub(super) fn provide(config: &Config) -> io::Result<()> {
    let needed = limits::files(config);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= needed {
        return Ok(());
    }
    if hard < needed {
        let problem =
            format!("{needed} file descriptors may be needed, and the limit is {hard}: raise it (`ulimit -n`)");
        return Err(io::Error::other(problem));
    }
    Ok(setrlimit(Resource::RLIMIT_NOFILE, needed, hard)?)
}
