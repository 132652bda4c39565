//! What key files say, and what a ring tells of them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use duragram_proto::ClientId;
use duragram_proto::seal::{ClientKey, FleetKey};
use proptest::prelude::*;

use super::{Client, KeyRing, Keys, Lookup};
use crate::limits;

const FLEET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const OWN: &str = "FFfefdfcfbfaf9f8f7f6f5f4f3f2f1f0efeeedecebeae9e8e7e6e5e4e3e2e1e0";

fn fleet_key() -> FleetKey {
    FleetKey::new(std::array::from_fn(|at| u8::try_from(at).unwrap()))
}

fn own_key() -> ClientKey {
    ClientKey::new(std::array::from_fn(|at| 0xff - u8::try_from(at).unwrap()))
}

fn keys(text: &str) -> Keys {
    Keys::parse(text.as_bytes()).unwrap()
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

#[track_caller]
fn client(lookup: Lookup) -> Client {
    match lookup {
        Lookup::Key(client) => (*client).clone(),
        other => panic!("{other:?}"),
    }
}

fn file() -> String {
    format!(
        "# keys of the north plant\n\nfleet {FLEET} # made in March\nclient 00000000000000a1 {OWN}\n\
         \tclient 0xb2 fleet channels=1,10-19\r\nclient 195 {OWN} channels=7\nrevoked 00000000000000d4\n\
         revoked 195\nrevoked 212"
    )
}

#[test]
fn a_client_has_its_own_key_or_the_one_derived_and_a_revoked_one_has_none() {
    let ring = KeyRing::of(keys(&file()));
    let named = client(ring.lookup(ClientId(0xa1)));
    assert_eq!(named.key.expose(), own_key().expose());
    assert!(named.channels.is_none());
    let unnamed = client(ring.lookup(ClientId(7)));
    assert_eq!(unnamed.key.expose(), fleet_key().client_key(ClientId(7)).expose());
    assert!(unnamed.channels.is_none());
    // 195 is 0xc3: it has a key of its own and is revoked all the same; 212 is 0xd4.
    for revoked in [0xd4, 0xc3] {
        assert!(matches!(ring.lookup(ClientId(revoked)), Lookup::Revoked));
    }
    let restricted = client(ring.lookup(ClientId(0xb2)));
    assert_eq!(restricted.key.expose(), fleet_key().client_key(ClientId(0xb2)).expose());
    let channels = restricted.channels.unwrap();
    let allowed: Vec<u16> = (0..=u16::MAX).filter(|&channel| channels.contains(channel)).collect();
    assert_eq!(allowed, [1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
    let named: Vec<u64> = (0..=300).filter(|&id| ring.has_own_key(ClientId(id))).collect();
    assert_eq!(named, [0xa1, 0xb2, 0xc3, 0xd4]);
}

#[test]
fn without_a_fleet_key_only_named_clients_have_one() {
    let ring = KeyRing::of(keys(&format!("client 1 {OWN}\n")));
    assert!(matches!(ring.lookup(ClientId(2)), Lookup::Unknown));
    assert!(!ring.has_own_key(ClientId(2)) && ring.has_own_key(ClientId(1)));
}

#[test]
fn a_ring_without_keys_knows_nobody_and_stays_so() {
    let ring = KeyRing::none();
    ring.reload().unwrap();
    ring.replace(keys(&file()));
    assert!(ring.is_none() && ring.summary().is_none() && ring.generation() == 0);
    assert!(matches!(ring.lookup(ClientId(0xa1)), Lookup::Unknown));
    assert!(!ring.has_own_key(ClientId(0xa1)));
}

#[test]
fn a_reload_is_seen_by_every_clone_and_one_that_fails_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    write(&path, &format!("client 1 {OWN}\n"));
    let ring = KeyRing::load(&path).unwrap();
    let clone = ring.clone();
    let first = clone.generation();
    write(&path, &format!("client 1 {OWN}\nrevoked 1\nclient 2 {FLEET}"));
    ring.reload().unwrap();
    assert_ne!(clone.generation(), first);
    assert!(matches!(clone.lookup(ClientId(1)), Lookup::Revoked));
    assert_eq!(client(clone.lookup(ClientId(2))).key.expose(), fleet_key().expose());

    let (before, since) = (clone.generation(), clone.summary().unwrap());
    let wrong = ["", "# none\n", "revoked 1\n", "client 1\n", &format!("fleet {}", &FLEET[1..])];
    for text in wrong {
        write(&path, text);
        assert!(ring.reload().is_err(), "{text}");
    }
    write(&path, &format!("fleet {FLEET}\n"));
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert!(ring.reload().unwrap_err().to_string().contains("0644"));
    fs::remove_file(&path).unwrap();
    assert!(ring.reload().is_err());
    assert_eq!((clone.generation(), clone.summary().unwrap()), (before, since));
    assert!(matches!(clone.lookup(ClientId(1)), Lookup::Revoked));
}

#[track_caller]
fn wrong(text: &str, expected: &str) {
    let error = Keys::parse(text.as_bytes()).expect_err("this file is wrong");
    assert_eq!(error.to_string(), expected, "{text}");
}

#[test]
fn an_error_names_the_line_and_shows_nothing_of_it() {
    let key_wrong = "what should be a key is not 64 hexadecimal digits";
    wrong("", "line 1: the file ends without a key");
    wrong("revoked 1\n# nothing\n", "line 3: the file ends without a key");
    wrong("fleet", "line 1: lacks the key");
    wrong("\nfleet # 00\n", "line 2: lacks the key");
    wrong("client", "line 1: lacks the client id");
    wrong("client 1", "line 1: lacks the key");
    wrong("revoked", "line 1: lacks the client id");
    wrong(&format!("fleet {}", &FLEET[..62]), &format!("line 1: {key_wrong}"));
    wrong(&format!("fleet {FLEET}00"), &format!("line 1: {key_wrong}"));
    wrong(&format!("fleet {}g", &FLEET[..63]), &format!("line 1: {key_wrong}"));
    wrong(&format!("client 1 +{}", &FLEET[..63]), &format!("line 1: {key_wrong}"));
    let id_wrong = "what should be a client id is neither 16 hexadecimal digits, nor 0x and such digits, nor a number";
    wrong(&format!("client {FLEET} 1"), &format!("line 1: {id_wrong}"));
    wrong(&format!("client +1 {FLEET}"), &format!("line 1: {id_wrong}"));
    wrong("revoked 0x", &format!("line 1: {id_wrong}"));
    let surplus = "has more words than it may have; a comment begins with #";
    wrong(&format!("fleet {FLEET} 1"), &format!("line 1: {surplus}"));
    wrong(&format!("client 1 {OWN} 2"), &format!("line 1: {surplus}"));
    wrong(&format!("client 1 {OWN} channels=1 2"), &format!("line 1: {surplus}"));
    wrong(&format!("fleet {FLEET}\nrevoked 1 2"), &format!("line 2: {surplus}"));
    wrong(FLEET, "line 1: begins with none of fleet, client, revoked and #");
    wrong(&format!("fleet {FLEET}\nfleet\u{a0}{OWN}"), "line 2: is not ASCII text");
    wrong(&format!("client 1 {FLEET}\n\nfleet {OWN}\nfleet {FLEET}"), "line 4: was said already, in line 3");
    wrong(&format!("client 9 {OWN}\nclient 1 {FLEET}\nclient 0x9 {OWN}"), "line 3: was said already, in line 1");
    let no_fleet = "the client's key is to be derived, and the file has no fleet key";
    wrong(&format!("client 1 {OWN}\nclient 2 fleet"), &format!("line 2: {no_fleet}"));
    for list in ["", "x", "1,", "65536", "5-4", "1-2-3"] {
        let text = format!("client 1 {OWN} channels={list}");
        wrong(&text, "line 1: wants channels=N,N-M with numbers from 0 to 65535");
    }
    let lists: String = (0..=limits::KEY_CHANNEL_LISTS).map(|n| format!("client {n} {OWN} channels={n}\n")).collect();
    wrong(&lists, "line 1025: one more than 1024 different lists of channels");
}

#[test]
fn comments_may_hold_any_bytes() {
    let text = [format!("fleet {FLEET} # f\u{fc}r \u{7532}").into_bytes(), b"\n#\xff\xfe\n".to_vec()].concat();
    assert!(Keys::parse(&text).unwrap().fleet().is_some());
}

#[test]
fn a_client_takes_no_more_memory_than_the_limits_say() {
    assert!(size_of::<super::Named>() <= limits::KEY_CLIENT_BYTES, "{}", size_of::<super::Named>());
}

#[test]
fn one_client_more_than_the_server_holds_is_refused() {
    let revoked: String = (0..=limits::KEY_CLIENTS).map(|id| format!("revoked {id}\n")).collect();
    wrong(&format!("{revoked}fleet {FLEET}"), "line 350001: one more than 350000 clients");
}

#[test]
fn nothing_shows_a_key() {
    let keys = keys(&file());
    let ring = KeyRing::of(keys);
    let looked_up = client(ring.lookup(ClientId(0xa1)));
    let shown = format!("{ring:?} {:?} {looked_up:?} {:?}", ring.lookup(ClientId(0xa1)), ring.summary());
    let shown = shown.to_lowercase();
    for part in ["0001020304", "fffefdfcfb", "0, 1, 2, 3", "255, 254, 253"] {
        assert!(!shown.contains(part), "{shown}");
    }
    let (summary, _) = ring.summary().unwrap();
    assert_eq!(
        summary.to_string(),
        format!(
            "fleet key {}, 2 clients with a key of their own, 2 restricted, 2 revoked",
            super::show_fingerprint(fleet_key().fingerprint())
        )
    );
}

proptest! {
    /// Whatever stands in a line, its error shows no eight characters of it that are not words of ours.
    #[test]
    fn an_error_repeats_nothing_of_the_file(words in prop::collection::vec("[0-9a-fA-F]{8,70}|fleet|client|revoked|channels=", 1..6)) {
        if let Err(error) = Keys::parse(words.join(" ").as_bytes()) {
            let shown = error.to_string();
            for word in words.iter().filter(|word| word.chars().all(|c| c.is_ascii_hexdigit())) {
                prop_assert!(!shown.contains(&word[..8]), "{}", shown);
            }
        }
    }
}
