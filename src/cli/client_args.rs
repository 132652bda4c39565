//! What the commands that are clients have in common: where the server is, in whose name they speak, and what keeps them waiting.

use std::io;

use duragram_proto::ClientId;
use duragram_proto::codec::RejectCode;
use duragram_proto::seal::ClientKey;
use tokio::runtime::Runtime;

use super::Failure;
use super::key_file::KeyFileArgs;
use crate::client::{Builder, Client};
use crate::model::parse_client_id;

/// `--server`, `--client` and `--key-file`.
#[derive(Debug, clap::Args)]
pub(super) struct ClientArgs {
    /// Where the server is: HOST:PORT; HOST is a name or an address, IPv6 in brackets: [fe80::1%eth0]:7117
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7117", env = "DURAGRAM_SERVER")]
    pub(super) server: String,

    /// Who sends: 16 hexadecimal digits, 0x and hexadecimal digits, or a decimal number [default: the only
    /// client of the key file, else random]
    #[arg(long, value_name = "ID", value_parser = parse_client)]
    pub(super) client: Option<ClientId>,

    #[command(flatten)]
    key: KeyFileArgs,
}

impl ClientArgs {
    /// The client that speaks in sealed mode, with its key; `None` without a key file.
    pub(super) fn sealed(&self) -> Result<Option<(ClientId, ClientKey)>, Failure> {
        self.key.client(self.client, || ClientId(rand::random()))
    }

    /// The client that these arguments and what [`sealed`](Self::sealed) found describe.
    pub(super) fn builder(&self, sealed: Option<(ClientId, ClientKey)>) -> Builder {
        let mut builder = Client::builder(&self.server);
        if let Some(client) = self.client {
            builder = builder.client_id(client.0);
        }
        if let Some((client, key)) = sealed {
            builder = builder.client_id(client.0).key(key);
        }
        builder
    }
}

/// A client's id, as it is shown and as people write it.
pub(super) fn parse_client(text: &str) -> Result<ClientId, String> {
    parse_client_id(text)
        .ok_or_else(|| "neither 16 hexadecimal digits, nor 0x and such digits, nor a number".to_owned())
}

/// What a command that is a client runs on. tokio has no other answer than a panic where it gets no thread: one worker, and two for
/// files and terminals.
pub(super) fn runtime() -> io::Result<Runtime> {
    crate::client::threads::are_granted(3)?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

/// What keeps records from being acked, as far as it is known.
pub(super) fn obstacle(refusal: Option<RejectCode>, trouble: Option<&str>) -> Option<String> {
    // What the server itself says is nearer to the cause.
    refusal.map(|code| format!("the server refuses: {}", refusal_text(code))).or_else(|| trouble.map(str::to_owned))
}

/// What the server says by refusing.
pub(super) fn refusal_text(code: RejectCode) -> String {
    let (name, meaning) = match code {
        RejectCode::Version => ("VERSION", "it speaks another version of the protocol"),
        RejectCode::Unsupported => (
            "UNSUPPORTED",
            "it does not have a feature that the record needs, or does not allow it (its asks_max and plain_asks)",
        ),
        RejectCode::TooLarge => ("TOO_LARGE", "the datagram is longer than it accepts (its datagram_bytes_max)"),
        RejectCode::StaleEpoch => ("STALE_EPOCH", "the session does not fit its journal"),
        RejectCode::BeyondWindow => ("BEYOND_WINDOW", "its window is full"),
        RejectCode::Busy => ("BUSY", "it has no room for another session or ask (its sessions_max and asks_max)"),
        RejectCode::Storage => ("STORAGE", "its disk has less free space than its reserve (its reserve_bytes)"),
        RejectCode::Channel => ("CHANNEL", "it does not accept this channel"),
        RejectCode::SealedOnly => ("SEALED_ONLY", "it takes sealed traffic alone, which needs --key-file"),
        RejectCode::Unknown(code) => return format!("code {code}, which this version does not know"),
    };
    format!("{name}, {meaning}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_read_as_it_is_shown_and_as_people_write_it() {
        for (text, id) in [
            ("00000000000000a1", 0xa1),
            ("ffffffffffffffff", u64::MAX),
            ("0xA1", 0xa1),
            ("161", 161),
            ("18446744073709551615", u64::MAX),
            ("1000000000000000", 0x1000_0000_0000_0000),
        ] {
            assert_eq!(parse_client(text), Ok(ClientId(id)), "{text}");
        }
        for text in ["", "a1", "0x", "-1", "18446744073709551616", "00000000000000g1", "0x10000000000000000"] {
            assert!(parse_client(text).is_err(), "{text}");
        }
    }
}
