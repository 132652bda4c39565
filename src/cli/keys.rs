//! `duragram keys`: makes and changes key files. A key is never an argument, and never shown.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use duragram_proto::ClientId;
use duragram_proto::seal::{ClientKey, FleetKey};

use super::{Failure, Report, complain, key_file, print};
use crate::host::secret_file::{self, Existing};
use crate::keys::{Keys, Lookup, file, show_fingerprint};
use crate::model::parse_client_id;

/// Make, derive, identify and revoke the keys of sealed mode.
///
/// A server with keys takes sealed traffic alone: encrypted, authenticated, each client with its own key. Without a fleet
/// key only the clients that the file names get in; with one, every client whose key was derived from it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct KeysArgs {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Key files are text, the same for server and clients. A key is 64 hexadecimal digits:
  # what follows a # is a comment
  fleet KEY                                   every client's key is derived from this one,
  client 00000000000000a1 KEY                 but this client has its own,
  client 00000000000000b2 fleet channels=1,10-19   and this one may only use these channels.
  revoked 00000000000000c3                    Nothing from this one is accepted.
Only their owner may have any permission on them (`chmod 600`), and that is root or whoever reads them. A server reads its
file again on SIGHUP; if it is wrong then, the keys in force stay. A systemd credential (LoadCredential=) is a copy from the
service's start: there, restart the service.

Examples:
  duragram keys new --fleet /etc/duragram/keys                  a fleet key; then: duragram serve --keys /etc/duragram/keys
  duragram keys derive /etc/duragram/keys --client 0xa1 a1.key  the file for client a1, which never sees the fleet key
  duragram send --key-file a1.key readings.txt
  duragram keys new --client 0xb2 b2.key                        a key of its own, not derived;
  cat b2.key >> /etc/duragram/keys                              the server needs it too
  duragram keys revoke /etc/duragram/keys 0xa1                  and tell the server: SIGHUP, or a restart (see above)

Exit codes:
  0  done
  1  not done, such as a file that exists already
  2  usage, or a key file that is wrong";

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a new random key, and print its id
    New {
        #[command(flatten)]
        whose: Whose,
        /// With --client: the channels that it may use, such as 1,10-19 [default: all]
        #[arg(long, value_name = "LIST", requires = "client")]
        channels: Option<String>,
        #[command(flatten)]
        out: Out,
    },
    /// Derive a client's key from the fleet key, and print its id
    Derive {
        /// The file with the fleet key
        #[arg(value_name = "FLEET_FILE")]
        from: PathBuf,
        /// Whose key: 16 hexadecimal digits, 0x and hexadecimal digits, or a decimal number
        #[arg(long, value_name = "ID", value_parser = client_id)]
        client: ClientId,
        #[command(flatten)]
        out: Out,
    },
    /// Print the ids of a file's keys: 16 digits that tell keys apart and may be shown to anyone
    ShowId {
        /// The key file
        file: PathBuf,
        /// Only this client's; with a fleet key any client's
        #[arg(long, value_name = "ID", value_parser = client_id)]
        client: Option<ClientId>,
    },
    /// Add clients to those from whom the server accepts nothing; tell it by SIGHUP
    Revoke {
        /// The server's key file
        file: PathBuf,
        /// Who: 16 hexadecimal digits, 0x and hexadecimal digits, or decimal numbers
        #[arg(value_name = "ID", required = true, value_parser = client_id)]
        clients: Vec<ClientId>,
    },
}

/// For whom a new key is.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Whose {
    /// A fleet key, from which clients' keys are derived
    #[arg(long)]
    fleet: bool,

    /// This client's: 16 hexadecimal digits, 0x and hexadecimal digits, or a decimal number
    #[arg(long, value_name = "ID", value_parser = client_id)]
    client: Option<ClientId>,
}

/// Where a new key goes.
#[derive(Debug, clap::Args)]
struct Out {
    /// The file to write; it must not exist. - writes the line to stdout instead of the id, unless that is a terminal
    #[arg(value_name = "FILE")]
    path: PathBuf,
}

/// Runs one of the commands.
pub(super) fn run(args: &KeysArgs) -> Result<(), Failure> {
    match &args.command {
        Command::New { whose, channels, out } => {
            let random =
                file::random_key().map_err(|error| Failure::not_done(format_args!("no random bytes: {error}")))?;
            match whose.client {
                None => {
                    let key = FleetKey::new(*random);
                    out.write(&file::fleet_line(&key), &id_of_fleet(&key))
                }
                Some(client) => {
                    let key = ClientKey::new(*random);
                    let line = file::client_line(client, &key, channels.as_deref());
                    // The only part that is not ours; what follows a # would not be looked at.
                    let clean = |list: &String| list.bytes().all(|byte| byte.is_ascii_digit() || b",-".contains(&byte));
                    if !channels.as_ref().is_none_or(clean) || Keys::parse(line.as_bytes()).is_err() {
                        return Err(Failure::usage(
                            "--channels takes numbers from 0 to 65535 and ranges, such as 1,10-19",
                        ));
                    }
                    out.write(&line, &id_of(client, &key))
                }
            }
        }
        Command::Derive { from, client, out } => {
            let keys = key_file::read(from)?;
            let Some(fleet) = keys.fleet() else {
                return Err(Failure::usage(format_args!("{} has no fleet key", from.display())));
            };
            // A key that the server would not take is of no use to the client.
            let key = fleet.client_key(*client);
            match keys.lookup(*client) {
                Lookup::Key(in_force) if in_force.key.fingerprint() == key.fingerprint() => {}
                Lookup::Revoked => {
                    return Err(Failure::not_done(format_args!("{}: client {client} is revoked", from.display())));
                }
                _ => {
                    let message = format!("{}: client {client} has a key of its own", from.display());
                    return Err(Failure::not_done(message));
                }
            }
            out.write(&file::client_line(*client, &key, None), &id_of(*client, &key))
        }
        Command::ShowId { file, client } => print(ids(file, &key_file::read(file)?, *client)?),
        Command::Revoke { file, clients } => {
            let today =
                jiff::Timestamp::try_from(SystemTime::now()).map_or_else(|_| String::new(), |now| format!("{now:.0}"));
            let new = file::revoke(file, clients, &today).map_err(Failure::usage)?;
            let mut report = Report::default();
            for client in clients {
                let already = if new.contains(client) { "" } else { " already" };
                report.tell(format_args!("{client} revoked{already}\n"));
            }
            if !new.is_empty() && io::stderr().is_terminal() {
                complain("a running server learns of it by SIGHUP; from a systemd credential, by a restart");
            }
            Ok(())
        }
    }
}

/// A line for each key that there is, or for the client's that was asked for.
fn ids(path: &Path, keys: &Keys, client: Option<ClientId>) -> Result<String, Failure> {
    let of = |client: ClientId| match keys.lookup(client) {
        Lookup::Key(found) => Some(id_of(client, &found.key)),
        Lookup::Revoked => Some(format!("revoked {client}\n")),
        Lookup::Unknown => None,
    };
    if let Some(client) = client {
        let none = || Failure::not_done(format_args!("{} has no key for client {client}", path.display()));
        return of(client).ok_or_else(none);
    }
    let named = keys.clients().filter(|client| keys.revoked().binary_search(client).is_err());
    let all = named.chain(keys.revoked().iter().copied()).filter_map(of);
    Ok(keys.fleet().map(id_of_fleet).into_iter().chain(all).collect())
}

fn id_of_fleet(key: &FleetKey) -> String {
    format!("fleet {}\n", show_fingerprint(key.fingerprint()))
}

fn id_of(client: ClientId, key: &ClientKey) -> String {
    format!("client {client} {}\n", show_fingerprint(key.fingerprint()))
}

impl Out {
    /// Writes the line where it is wanted, and tells the key's id where it is not.
    fn write(&self, line: &str, id: &str) -> Result<(), Failure> {
        if self.path.as_os_str() == "-" {
            if io::stdout().is_terminal() {
                return Err(Failure::usage("a key is not shown on a terminal; name a file, or pipe it somewhere"));
            }
            return print(line);
        }
        secret_file::write(&self.path, line.as_bytes(), Existing::Keep).map_err(Failure::not_done)?;
        // The key is there, whoever hears of it.
        Report::default().tell(id);
        Ok(())
    }
}

fn client_id(text: &str) -> Result<ClientId, String> {
    parse_client_id(text)
        .ok_or_else(|| "neither 16 hexadecimal digits, nor 0x and such digits, nor a number".to_owned())
}
