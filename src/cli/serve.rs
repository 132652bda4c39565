//! `duragram serve` runs the server until it is told to stop.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::config_args::ConfigArgs;
use super::{Failure, logs, print};
use crate::model::SinkTarget;
use crate::server;

/// Run the server: journal datagrams, ack them once they are on disk, process them.
///
/// Says `duragram ready udp=ADDR admin=ADDR` in a line of its own when it accepts datagrams: on stdout, or on stderr if a
/// sink writes to stdout (as the default one does), which then holds records alone. Logs go to stderr. SIGTERM and
/// SIGINT stop it in good order: what was received is committed and acked, processing gets `--drain-timeout` to go on,
/// the rest is processed after the next start; a second one ends the wait for that, a third one the process. SIGHUP
/// reopens the files of file sinks and reads the key file again. SIGQUIT ends the process at once. During the start SIGTERM
/// and SIGINT end it at once, and SIGHUP is kept until it is ready.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,

    /// Start although acked data in the journal is damaged: keeps what is whole, records the loss
    ///
    /// Without it a damaged journal is refused with exit code 3 and left as it is. Look with `duragram journal verify`
    /// first, and copy the directory. A flag only, never a key of the file: it must not hide the next damage.
    #[arg(long)]
    accept_loss: bool,
}

const AFTER_HELP: &str = "\
Values rise in this order: defaults, the file, DURAGRAM_* variables, flags. An empty variable counts as unset; one that is \
no setting of this program is ignored with a warning. \
SIZE is a number of bytes, or one with a unit (4MiB, 512kB); TIME has a unit (100ms, 30s, 7d). \
In the file, --retry-first-delay is first_delay in the table [retry], and --log-level is level in [log]. \
Lists are arrays in the file, separated by commas in a variable, repeated flags on the command line. \
Each sink may be a table [[sink]] in the file, with a name, a type (stdout, file, null, http, exec, postgres, nats, redis, mqtt) \
and more keys than its short form has, such as channels, batch.records_max, backlog.bytes_max and tls.ca_file; passwords come \
from files, variables or credentials. docs/configuration.md has them all, with an example of each type. \
`duragram check-config` takes the same and shows what it comes to.

Examples:
  duragram serve --data /var/lib/duragram --sink file:/var/log/records.ndjson
  duragram serve --config /etc/duragram.toml --log-level debug
  duragram serve --listen 0.0.0.0:7117 --keys /etc/duragram/keys
  DURAGRAM_LISTEN=0.0.0.0:7117 DURAGRAM_ALLOW_PLAIN=true duragram serve
  duragram serve | jq -c .payload                    records alone are on stdout
  duragram serve --sink 'postgres://ingest@127.0.0.1/app?table=records&password_file=/etc/duragram/pg'

Exit codes:
  0  stopped in good order
  1  not done, such as an address in use, too few threads, or ended at once by a signal
  2  usage or configuration
  3  journal damaged; nothing was changed
  4  storage failed; nothing was acked that is not on disk";

/// Runs until a signal or a failure.
pub(super) fn run(args: ServeArgs) -> Result<(), Failure> {
    let (loaded, strangers) = args.config.load()?;
    let mut config = loaded.config;
    config.accept_loss = args.accept_loss;
    logs::start(&config.log);
    if let Some(strangers) = strangers {
        tracing::warn!("{strangers}");
    }
    let records_on_stdout = config.sink.iter().any(|sink| writes_to_stdout(&sink.target));
    let ready = move |ready: &server::Ready| {
        let udp: Vec<String> = ready.udp.iter().map(ToString::to_string).collect();
        let admin = ready.admin.map_or_else(|| "off".to_owned(), |address| address.to_string());
        let line = format!("duragram ready udp={} admin={admin}\n", udp.join(","));
        // The server serves also when nobody reads what it says any more.
        if records_on_stdout {
            drop(io::stderr().write_all(line.as_bytes()));
        } else {
            drop(print(line));
        }
    };
    server::run(config, ready).map_err(|error| Failure::Failed { code: error.exit_code(), message: error.to_string() })
}

/// Whether what a sink writes is read from this process's stdout: under that name, or under a file's that leads there, such
/// as `file:/dev/stdout`.
fn writes_to_stdout(target: &SinkTarget) -> bool {
    let place = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    match target {
        SinkTarget::Stdout => true,
        SinkTarget::File(path) => {
            let stdout = place(Path::new("/dev/stdout"));
            stdout.is_some() && stdout == place(path)
        }
        _ => false,
    }
}
