//! `duragram keys`, the real program; and that no part of the program shows a key.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use duragram::keys::{Keys, Lookup};
use duragram::proto::ClientId;
use duragram::proto::seal::FleetKey;
use tempfile::TempDir;

use crate::cli::support::{outcome, run, text};

/// A directory of key files.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs `duragram keys` with arguments in which `@name` stands for a file here.
    fn keys(&self, args: &[&str]) -> (i32, String, String) {
        let in_place = |arg: &&str| arg.strip_prefix('@').map(|name| self.path(name).display().to_string());
        let args: Vec<String> = args.iter().map(|arg| in_place(arg).unwrap_or_else(|| (*arg).to_owned())).collect();
        let args: Vec<&str> = ["keys"].into_iter().chain(args.iter().map(String::as_str)).collect();
        outcome(&args)
    }

    /// As `keys`, for what must succeed; its stdout.
    #[track_caller]
    fn done(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.keys(args);
        assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
        stdout
    }
}

fn parse(path: &Path) -> Keys {
    Keys::parse(&fs::read(path).unwrap()).unwrap()
}

fn key_of(keys: &Keys, client: u64) -> [u8; 32] {
    match keys.lookup(ClientId(client)) {
        Lookup::Key(found) => *found.key.expose(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_fleet_key_is_made_and_a_client_gets_the_key_derived_from_it() {
    let place = Place::new();
    let id = place.done(&["new", "--fleet", "@fleet"]);
    let path = place.path("fleet");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(place.done(&["show-id", "@fleet"]), id);

    let derived = place.done(&["derive", "@fleet", "--client", "0xa1", "@a1"]);
    assert_eq!(place.done(&["show-id", "@a1"]), derived);
    assert_eq!(place.done(&["show-id", "@fleet", "--client", "161"]), derived);
    let fleet = FleetKey::new(*parse(&path).fleet().unwrap().expose());
    assert_eq!(key_of(&parse(&place.path("a1")), 0xa1), *fleet.client_key(ClientId(0xa1)).expose());
    assert!(parse(&place.path("a1")).fleet().is_none());

    place.done(&["new", "--fleet", "@other"]);
    assert_ne!(place.done(&["show-id", "@other"]), id, "two keys are never alike");
}

#[test]
fn nothing_is_overwritten_and_an_error_leaves_nothing() {
    let place = Place::new();
    place.done(&["new", "--client", "1", "@one"]);
    let before = fs::read(place.path("one")).unwrap();
    for again in [&["new", "--client", "1", "@one"][..], &["new", "--fleet", "@one"]] {
        let (code, stdout, stderr) = place.keys(again);
        assert_eq!((code, stdout.as_str()), (1, ""));
        assert!(stderr.contains("one: cannot be written: ") && stderr.contains("exists"), "{stderr}");
    }
    assert_eq!(fs::read(place.path("one")).unwrap(), before);
    assert_eq!(place.keys(&["new", "--client", "1", "--channels", "9-5", "@two"]).0, 2);
    assert_eq!(place.keys(&["new", "--client", "1", "--channels", "1 # x", "@two"]).0, 2);
    assert_eq!(place.keys(&["derive", "@one", "--client", "1", "@two"]).0, 2, "there is no fleet key");
    assert_eq!(place.keys(&["new", "--fleet", "--client", "1", "@two"]).0, 2);
    assert_eq!(place.keys(&["new", "@two"]).0, 2);
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 1);
}

#[test]
fn a_clients_own_key_is_added_to_the_servers_file_by_appending_and_revoked_for_good() {
    let place = Place::new();
    place.done(&["new", "--fleet", "@server"]);
    let own = place.done(&["new", "--client", "0xb2", "--channels", "1,10-19", "@b2"]);
    let line = fs::read(place.path("b2")).unwrap();
    fs::write(place.path("server"), [fs::read(place.path("server")).unwrap(), line].concat()).unwrap();
    assert!(place.done(&["show-id", "@server"]).ends_with(&own));

    let (code, _, stderr) = place.keys(&["derive", "@server", "--client", "0xb2", "@derived"]);
    assert_eq!((code, stderr.contains("has a key of its own")), (1, true), "{stderr}");

    // A file without a newline at its end, as editors leave it.
    let path = place.path("server");
    fs::write(&path, fs::read_to_string(&path).unwrap().trim_end()).unwrap();
    let told = place.done(&["revoke", "@server", "0xb2", "7"]);
    assert_eq!(told, "00000000000000b2 revoked\n0000000000000007 revoked\n");
    assert_eq!(place.done(&["revoke", "@server", "7"]), "0000000000000007 revoked already\n");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let keys = parse(&path);
    assert!([0xb2, 7].iter().all(|&id| matches!(keys.lookup(ClientId(id)), Lookup::Revoked)));
    assert!(matches!(keys.lookup(ClientId(8)), Lookup::Key(_)));
    let shown = place.done(&["show-id", "@server"]);
    assert!(shown.ends_with("\nrevoked 0000000000000007\nrevoked 00000000000000b2\n"), "{shown}");
    let (code, _, stderr) = place.keys(&["derive", "@server", "--client", "7", "@derived"]);
    assert_eq!((code, stderr.contains("is revoked")), (1, true), "{stderr}");
}

#[test]
fn a_file_that_others_may_read_is_refused_by_every_command() {
    let place = Place::new();
    place.done(&["new", "--fleet", "@server"]);
    fs::set_permissions(place.path("server"), Permissions::from_mode(0o644)).unwrap();
    let keys = place.path("server").display().to_string();
    let data = place.path("data").display().to_string();
    for args in [
        &["keys", "show-id", &keys][..],
        &["keys", "revoke", &keys, "1"],
        &["keys", "derive", &keys, "--client", "1", "-"],
        &["send", "--key-file", &keys, "/dev/null"],
        &["load", "--key-file", &keys],
        &["check-config", "--keys", &keys],
        &["serve", "--keys", &keys, "--data", &data],
    ] {
        let (code, _, stderr) = outcome(args);
        assert_eq!((code, stderr.contains("its permissions are 0644")), (2, true), "{args:?}: {stderr}");
    }
    assert!(!place.path("data").exists(), "nothing was begun");
}

#[test]
fn a_key_goes_to_stdout_only_when_it_is_asked_for_there() {
    let place = Place::new();
    let shown = place.done(&["new", "--fleet", "@server"]);
    let line = run(&["keys", "derive", &place.path("server").display().to_string(), "--client", "1", "-"]);
    let keys = Keys::parse(&line.stdout).unwrap();
    let fleet = parse(&place.path("server"));
    assert_eq!(key_of(&keys, 1), *fleet.fleet().unwrap().client_key(ClientId(1)).expose());
    assert_eq!(shown.len(), "fleet 0123456789abcdef\n".len(), "{shown}");
    assert!(!text(&line.stdout).contains(&fs::read_to_string(place.path("server")).unwrap()[6..70]));
}
