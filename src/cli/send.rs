//! `duragram send`: each line of a file or of stdin is a record.

use std::process::ExitCode;

/// Send each line of FILE or stdin as a record; succeeds only when the server has all of them on its disk.
#[derive(Debug, clap::Args)]
pub(super) struct SendArgs {}

/// Sends. Written in `src/client`.
pub(super) fn run(_args: SendArgs) -> ExitCode {
    super::complain("send is not part of this build");
    ExitCode::from(super::EXIT_NOT_DONE)
}
