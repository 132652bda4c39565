//! What the commands that are clients have in common: where the server is, and in whose name they speak.

use duragram_proto::ClientId;
use duragram_proto::seal::ClientKey;

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
