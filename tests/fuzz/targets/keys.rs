//! Bytes into the reader of key files: as they come, and as decisions of someone who writes one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use duragram::keys::{Keys, Lookup};
use duragram_proto::ClientId;
use duragram_proto::seal::FleetKey;

use super::input::Input;

pub(crate) fn keys(input: &[u8]) {
    any(input);
    written(Input(input));
}

/// It is refused with a word that shows nothing of it, or its lines and what is told of them agree.
fn any(text: &[u8]) {
    let keys = match Keys::parse(text) {
        Ok(keys) => keys,
        Err(error) => {
            assert!((1..=text.split(|&byte| byte == b'\n').count()).contains(&error.line), "{error}");
            let told = error.to_string();
            let shown = text.windows(12).filter(|part| part.iter().all(u8::is_ascii_hexdigit));
            shown.for_each(|part| assert!(!told.contains(std::str::from_utf8(part).expect("ASCII")), "{told}"));
            return;
        }
    };
    let summary = keys.summary();
    assert!(keys.clients().is_sorted() && keys.revoked().is_sorted());
    assert!(summary.fleet.is_some() || summary.clients > 0, "no key");
    assert_eq!(summary.revoked, keys.revoked().len());
    assert!(summary.clients.max(summary.restricted) <= keys.clients().count());
    for client in keys.clients() {
        let revoked = keys.revoked().contains(&client);
        match keys.lookup(client) {
            Lookup::Key(_) => assert!(!revoked),
            Lookup::Revoked => assert!(revoked),
            Lookup::Unknown => panic!("a named client without a key"),
        }
    }
}

/// What was meant is what is found, however it was written.
fn written(mut input: Input<'_>) {
    let mut text = String::new();
    let mut fleet = None;
    let mut clients = BTreeMap::new();
    let mut revoked = BTreeSet::new();
    while let Some(kind) = input.byte() {
        let (id, byte) = (u64::from(input.byte().unwrap_or(0) & 15), input.byte().unwrap_or(0));
        let digits: String = (0..32).map(|_| format!("{byte:02x}")).collect();
        let digits = if kind & 128 == 0 { digits } else { digits.to_uppercase() };
        let shown = match kind >> 5 & 3 {
            0 => format!("{id}"),
            1 => format!("{id:#x}"),
            _ => format!("{}", ClientId(id)),
        };
        let _infallible = match kind & 7 {
            0 if fleet.is_none() => {
                fleet = Some(byte);
                writeln!(text, "fleet {digits}")
            }
            1 | 2 if !clients.contains_key(&id) => {
                clients.insert(id, (Some(byte), None));
                writeln!(text, "\t client  {shown}\t{digits} # {byte}")
            }
            3 if !clients.contains_key(&id) && fleet.is_some() => {
                clients.insert(id, (None, Some(u16::from(byte))));
                writeln!(text, "client {shown} fleet channels={byte}-{byte},{byte}\r")
            }
            4 => {
                revoked.insert(id);
                writeln!(text, "revoked {shown}")
            }
            _ => writeln!(text, " # {byte}"),
        };
    }
    let Ok(keys) = Keys::parse(text.as_bytes()) else {
        return assert!(fleet.is_none() && clients.is_empty(), "refused:\n{text}");
    };
    for id in 0..16 {
        let named = clients.get(&id).copied();
        let derived = || fleet.map(|byte| *FleetKey::new([byte; 32]).client_key(ClientId(id)).expose());
        let expected = match named {
            Some((Some(byte), _)) => Some([byte; 32]),
            _ => derived(),
        };
        match keys.lookup(ClientId(id)) {
            Lookup::Revoked => assert!(revoked.contains(&id), "{id}\n{text}"),
            Lookup::Unknown => assert!(!revoked.contains(&id) && expected.is_none(), "{id}\n{text}"),
            Lookup::Key(found) => {
                assert_eq!((revoked.contains(&id), Some(*found.key.expose())), (false, expected), "{id}\n{text}");
                let only = named.and_then(|(_, only)| only);
                let allowed = |channel| found.channels.as_ref().is_none_or(|set| set.contains(channel));
                for channel in 0..300 {
                    assert_eq!(allowed(channel), only.is_none_or(|only| only == channel), "{id}\n{text}");
                }
            }
        }
    }
}
