//! `duragram completions` and `duragram man`: what the command line says of itself, for shells and for `man`.

use std::fs;
use std::path::PathBuf;

use clap_complete::Shell;

use super::{Failure, command, print};

/// Print a completion script for a shell.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  duragram completions bash > /etc/bash_completion.d/duragram
  duragram completions zsh > \"${fpath[1]}/_duragram\"
  duragram completions fish > ~/.config/fish/completions/duragram.fish")]
pub(super) struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Print the manual page, or write all pages into a directory.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  duragram man | man -l -
  duragram man /usr/local/share/man/man1")]
pub(super) struct ManArgs {
    /// Where to write one page for each command; made when it is missing
    #[arg(value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}

/// Prints the script with which a shell completes commands.
pub(super) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "duragram", &mut script);
    print(String::from_utf8_lossy(&script))
}

/// Prints the page or writes all.
pub(super) fn man(args: &ManArgs) -> Result<(), Failure> {
    if let Some(dir) = &args.dir {
        return fs::create_dir_all(dir)
            .and_then(|()| clap_mangen::generate_to(command(), dir))
            .map_err(|error| Failure::not_done(format_args!("cannot write to {}: {error}", dir.display())));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command())
        .render(&mut page)
        .map_err(|error| Failure::not_done(format_args!("cannot make the page: {error}")))?;
    print(String::from_utf8_lossy(&page))
}
