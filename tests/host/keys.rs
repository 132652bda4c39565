//! A server with keys, by the real program: who gets in, what a reload changes, and that no key is ever shown.

use std::collections::HashMap;
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use duragram::client::Client as Builder;
use duragram::client::blocking::Client;
use duragram::host::secret_file::{self, Existing};
use duragram::keys::{Keys, Lookup, file};
use duragram::proto::ClientId;
use duragram::proto::seal::{ClientKey, FleetKey};

use crate::cli::support as cli_support;
use crate::common::server::{Home, Server};
use crate::common::wait_for;

/// A key file for a server and some for clients.
struct Ring<'a> {
    home: &'a Home,
}

impl Ring<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The server reads this key file.
    fn server(&self) -> PathBuf {
        self.path("keys")
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::remove_file(&path).ok();
        secret_file::write(&path, text.as_bytes(), Existing::Keep).unwrap();
        path
    }

    fn serve(&self, flags: &[&str]) -> Server {
        let keys = self.server().display().to_string();
        self.home.serve_with(&[&["--keys", &keys], flags].concat())
    }

    /// `duragram send` of these lines; its exit code, stdout and stderr.
    fn send(&self, server: &Server, flags: &[&str], lines: &str) -> (i32, String, String) {
        let input = self.path("input");
        fs::write(&input, lines).unwrap();
        let (udp, input) = (server.udp.to_string(), input.display().to_string());
        cli_support::outcome(&[&["send", "--server", &udp], flags, &[&input]].concat())
    }

    fn reload(&self, server: &Server, done: bool) {
        let outcome = if done { "done" } else { "failed" };
        let before = server.metric("duragram_key_reloads_total", outcome);
        server.signal("HUP");
        wait_for("the reload", || (server.metric("duragram_key_reloads_total", outcome) > before).then_some(()));
    }
}

fn key(byte: u8) -> ClientKey {
    ClientKey::new(std::array::from_fn(|at| byte.wrapping_mul(7).wrapping_add(u8::try_from(at).unwrap() * 11)))
}

fn line(client: u64, byte: u8) -> String {
    file::client_line(ClientId(client), &key(byte), None).to_string()
}

fn connect(server: &Server, client: u64, byte: u8) -> Client {
    Client::connect(Builder::builder(server.udp.to_string()).client_id(client).key(key(byte))).unwrap()
}

fn gets_in(client: &Client) {
    let ticket = client.send(b"let me in").unwrap();
    ticket.wait().unwrap();
}

#[test]
fn a_client_with_a_derived_key_gets_in_and_none_without_does() {
    let home = Home::new();
    let ring = Ring { home: &home };
    let path = |name: &str| ring.path(name).display().to_string();
    for args in [
        &["keys", "new", "--fleet", &path("keys")][..],
        &["keys", "derive", &path("keys"), "--client", "0xa1", &path("a1")],
        &["keys", "new", "--fleet", &path("other")],
    ] {
        assert_eq!(cli_support::outcome(args).0, 0, "{args:?}");
    }
    let server = ring.serve(&[]);
    let (code, stdout, stderr) = ring.send(&server, &["--key-file", &path("a1")], "one\ntwo\n");
    assert_eq!(code, 0, "{stdout}{stderr}");
    let lines = home.wait_lines(2);
    assert!(lines.iter().all(|line| line.client == "00000000000000a1"), "{lines:?}");

    let (code, _, stderr) = ring.send(&server, &[], "three\n");
    assert_eq!((code, stderr.contains("sealed traffic alone")), (1, true), "{stderr}");
    let (code, _, stderr) = ring.send(&server, &["--key-file", &path("other"), "--timeout", "1s"], "four\n");
    assert_eq!((code, stderr.contains("gave up")), (1, true), "{stderr}");
    assert_eq!(home.lines().len(), 2);

    // A load: each client with its own key.
    let udp = server.udp.to_string();
    let load =
        ["load", "--server", &udp, "--clients", "20", "--window", "8", "--seconds", "0.3", "--gso", "4", "--json"];
    let (code, stdout, stderr) = cli_support::outcome(&[&load[..], &["--key-file", &path("keys")]].concat());
    assert_eq!(code, 0, "{stdout}{stderr}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert!(report["acked"].as_u64().unwrap() > 100, "{report}");
    let (code, _, stderr) = cli_support::outcome(&load);
    assert_eq!((code, stderr.contains("SealedOnly")), (1, true), "{stderr}");
    let (code, _, stderr) = cli_support::outcome(&[&load[..], &["--key-file", &path("a1")]].concat());
    assert_eq!((code, stderr.contains("no fleet key")), (2, true), "{stderr}");
}

#[test]
fn a_reload_drops_no_session_lets_new_clients_in_and_revoked_ones_out() {
    let home = Home::new();
    let ring = Ring { home: &home };
    let both = format!("{}{}", line(1, 1), line(2, 2));
    ring.write("keys", &both);
    let server = ring.serve(&[]);
    let (one, two) = (connect(&server, 1, 1), connect(&server, 2, 2));
    gets_in(&one);
    gets_in(&two);
    let epochs = (one.stats().epoch, two.stats().epoch);

    ring.write("keys", &format!("{both}{}", line(3, 3)));
    ring.reload(&server, true);
    let three = connect(&server, 3, 3);
    gets_in(&three);
    gets_in(&one);
    gets_in(&two);
    assert_eq!((one.stats().epoch, two.stats().epoch), epochs, "the sessions go on");

    // A file that is wrong, of whatever kind, changes nothing.
    for wrong in ["", "client 1\n", &format!("{both}client 3 {}\n", "0".repeat(63))] {
        ring.write("keys", wrong);
        ring.reload(&server, false);
        gets_in(&three);
    }
    assert!(server.log().contains("the keys stay as they are"), "{}", server.log());
    let status: serde_json::Value = serde_json::from_str(&server.get("/api/status")).unwrap();
    assert_eq!((&status["keys"]["clients"], &status["keys"]["fleet"]), (&3.into(), &serde_json::Value::Null));

    // Revoked, and given another key.
    ring.write("keys", &format!("{}{}{}revoked 2\n", line(1, 9), line(2, 2), line(3, 3)));
    ring.reload(&server, true);
    let before = home.wait_lines(1).len();
    for shut_out in [&one, &two] {
        drop(shut_out.send(b"too late").unwrap());
    }
    gets_in(&three);
    gets_in(&connect(&server, 1, 9));
    // Both were tried before, and again meanwhile.
    wait_for("another try", || (one.stats().retransmissions.min(two.stats().retransmissions) > 0).then_some(()));
    let lines = home.wait_lines(before + 2);
    assert!(lines.iter().all(|line| line.payload() != b"too late"), "{lines:?}");
    assert!(one.close(Some(Duration::ZERO)).is_err() && two.close(Some(Duration::ZERO)).is_err());
}

/// What any user of the machine can reach: reading is free there, and no change is.
#[test]
fn a_server_makes_itself_a_token_and_takes_changes_with_it_alone() {
    let home = Home::new();
    let server = home.serve();
    let file = home.data().join("admin-token");
    let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let token = fs::read_to_string(&file).unwrap();
    let url = format!("http://{}/api/dead/1/0", server.admin);
    let status = |request: ureq::RequestBuilder<_>| {
        request.config().http_status_as_error(false).build().call().unwrap().status().as_u16()
    };
    assert_eq!(status(ureq::delete(&url)), 401);
    assert_eq!(status(ureq::delete(&url).header("Authorization", format!("Bearer {}x", token.trim()))), 401);
    assert_eq!(status(ureq::delete(&url).header("Authorization", format!("Bearer {}", token.trim()))), 404);
    let (data, admin) = (home.data().display().to_string(), server.admin.to_string());
    let discard = ["dead", "discard", "1", "--admin", &admin];
    let output = cli_support::duragram(&discard).env("DURAGRAM_DATA", &data).output().unwrap();
    assert!(cli_support::text(&output.stderr).contains("there is no dead letter 1/0"), "{output:?}");
    let (_, _, stderr) = cli_support::outcome(&discard);
    assert!(stderr.contains("needs the admin token"), "{stderr}");
    assert!(server.terminate().success());

    // It is the same after a restart.
    let server = home.serve();
    assert_eq!(fs::read_to_string(&file).unwrap(), token);
    assert!(server.terminate().success());
}

/// Secrets, by each eight bytes in a row of them.
struct Secrets(HashMap<[u8; 8], &'static str>);

impl Secrets {
    fn new(secrets: &[(&'static str, &[u8])]) -> Self {
        let parts = secrets.iter().flat_map(|(name, secret)| secret.windows(8).map(|part| (part, *name)));
        Self(parts.map(|(part, name)| (part.try_into().unwrap(), name)).collect())
    }

    /// Which secret shows in a text, and how: as it is, in hexadecimal, in base64, or as a list of numbers.
    fn find(&self, text: &[u8]) -> Option<(&'static str, &'static str)> {
        let known = |part: &[u8]| part.first_chunk().and_then(|part| self.0.get(part)).copied();
        for at in 0..text.len() {
            let rest = &text[at..];
            if let Some(name) = known(rest) {
                return Some((name, "as it is"));
            }
            if let Some(name) = hexadecimal(rest).and_then(|part| known(&part)) {
                return Some((name, "in hexadecimal"));
            }
            if let Some(name) = base64(rest).and_then(|part| known(&part[..8]).or_else(|| known(&part[1..]))) {
                return Some((name, "in base64"));
            }
        }
        for radix in [10, 16] {
            let mut last = Vec::new();
            for word in text.split(|byte| !byte.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
                let word = std::str::from_utf8(word).unwrap();
                match u8::from_str_radix(word.trim_start_matches("0x"), radix) {
                    Ok(number) => last.push(number),
                    Err(_) => last.clear(),
                }
                if let Some(name) = last.len().checked_sub(8).and_then(|from| known(&last[from..])) {
                    return Some((name, "as a list of numbers"));
                }
            }
        }
        None
    }
}

/// Eight bytes, if the text begins with so many in hexadecimal.
fn hexadecimal(text: &[u8]) -> Option<[u8; 8]> {
    let digit = |at: usize| u8::try_from(char::from(*text.get(at)?).to_digit(16)?).ok();
    let mut bytes = [0; 8];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = digit(2 * at)? << 4 | digit(2 * at + 1)?;
    }
    Some(bytes)
}

/// Nine bytes, if the text begins with so many in base64 of either alphabet.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let standard: Vec<u8> = text
        .first_chunk::<12>()?
        .iter()
        .map(|c| match c {
            b'-' => b'+',
            b'_' => b'/',
            c => *c,
        })
        .collect();
    BASE64_STANDARD.decode(standard).ok().filter(|bytes| bytes.len() == 9)
}

#[test]
fn a_secret_is_found_in_whatever_form_it_is_shown() {
    let secret: Vec<u8> = (0..32).map(|byte| byte * 7 + 3).collect();
    let secrets = Secrets::new(&[("it", &secret)]);
    let shown = [
        format!("{secret:?}"),
        format!("{secret:x?}"),
        secret[9..20].iter().map(|byte| format!("{byte:02X}")).collect(),
        BASE64_STANDARD.encode(&secret),
        BASE64_URL_SAFE.encode([&b"xy"[..], &secret].concat()),
        serde_json::to_string(&secret).unwrap(),
    ];
    for text in shown {
        assert!(secrets.find(text.as_bytes()).is_some(), "{text}");
    }
    assert!(secrets.find(&[&b"...."[..], &secret[3..14], b"...."].concat()).is_some());
    assert!(secrets.find(b"nothing of the kind, not even 030a11181f262d").is_none());
}

/// The server at its most talkative, with traffic good and bad and key files good and bad; every word that it, the admin
/// interface and the other commands say, and every file that it writes.
#[test]
fn no_key_and_no_token_is_ever_shown() {
    let home = Home::new();
    let ring = Ring { home: &home };
    let fleet = FleetKey::new(*file::random_key().unwrap());
    let (own, wrong) = (ClientKey::new(*file::random_key().unwrap()), FleetKey::new(*file::random_key().unwrap()));
    let fleet_line = file::fleet_line(&fleet).to_string();
    let own_line = file::client_line(ClientId(0xb2), &own, Some("0-7")).to_string();
    let keys_text = format!("{fleet_line}{own_line}revoked 7\n");
    let server_keys = ring.write("keys", &keys_text);
    let own_file = ring.write("own", &own_line);
    let wrong_file = ring.write("wrong", &file::fleet_line(&wrong));
    let [server_keys, own_file, wrong_file] =
        [server_keys, own_file, wrong_file].map(|path| path.display().to_string());

    let server = ring.serve(&["--log-level", "trace", "--checkpoint-interval", "20ms"]);
    let token = fs::read(home.data().join("admin-token")).unwrap();
    let mut said: Vec<(String, Vec<u8>)> = Vec::new();
    let mut hear = |what: String, command: &mut Command| {
        let output = command.output().unwrap();
        said.push((what, [output.stdout, output.stderr].concat()));
    };

    // Traffic: derived, own, another server's keys, plain, garbage, sealed and then changed.
    let input = home.path().join("input");
    fs::write(&input, "one\ntwo\n").unwrap();
    let (udp, admin) = (server.udp.to_string(), server.admin.to_string());
    let input = input.display().to_string();
    for flags in [
        &["--key-file", &server_keys, "--client", "0xa1"][..],
        &["--key-file", &own_file],
        &["--key-file", &own_file, "--channel", "9", "--timeout", "500ms"],
        &["--key-file", &wrong_file, "--timeout", "500ms"],
        &["--key-file", &server_keys, "--client", "7"],
        &["--key-file", &input],
        &[],
    ] {
        let args = [&["send", "--server", &udp], flags, &[&input]].concat();
        hear(args.join(" "), &mut cli_support::duragram(&args));
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..200u8 {
        socket.send_to(&[&[0x11, 8][..], &vec![n; usize::from(n)]].concat(), server.udp).unwrap();
    }

    // Key files that are wrong, with keys where none should be.
    let hex = fleet_line.split(' ').nth(1).unwrap();
    for text in [
        format!("{hex}\n"),
        format!("fleet {}\n", &hex[..63]),
        format!("fleet {hex}{hex}\n"),
        format!("client {hex} {hex}\n"),
        format!("client 1 {hex} {hex}\n"),
        format!("client 1 {hex} channels={hex}\n"),
        format!("revoked {hex}\n"),
        format!("{fleet_line}{fleet_line}"),
        format!("fleet {}é{}\n", &hex[..31], &hex[..31]),
    ] {
        let path = ring.write("keys", &text).display().to_string();
        ring.reload(&server, false);
        for args in [
            &["serve", "--keys", &path, "--data", "/nonexistent", "--log-level", "trace"][..],
            &["check-config", "--keys", &path],
            &["keys", "show-id", &path],
            &["send", "--key-file", &path, &input],
        ] {
            hear(args.join(" "), &mut cli_support::duragram(args));
        }
    }
    ring.write("keys", &keys_text);
    ring.reload(&server, true);

    // Every question of the admin interface, and the commands that may see keys.
    let paths =
        ["/healthz", "/readyz", "/metrics", "/api/status", "/api/entries", "/api/dead", "/api/dead/1/0", "/none"];
    for path in paths {
        for authorization in ["", "Bearer wrong", &format!("Bearer {}", String::from_utf8_lossy(&token).trim())] {
            let mut request = ureq::get(format!("http://{admin}{path}"));
            if !authorization.is_empty() {
                request = request.header("Authorization", authorization);
            }
            let mut answer = request.config().http_status_as_error(false).build().call().unwrap();
            said.push((path.to_owned(), answer.body_mut().read_to_vec().unwrap()));
        }
    }
    let mut hear = |what: String, command: &mut Command| {
        let output = command.output().unwrap();
        said.push((what, [output.stdout, output.stderr].concat()));
    };
    let token_file = home.data().join("admin-token").display().to_string();
    for args in [
        &["check-config", "--keys", &server_keys][..],
        &["check-config", "--keys", &server_keys, "--json"],
        &["keys", "show-id", &server_keys],
        &["keys", "show-id", &own_file],
        &["keys", "revoke", &server_keys, "8"],
        &["dead", "discard", "1", "--admin", &admin, "--admin-token-file", &token_file],
        &["dead", "discard", "1", "--admin", &admin, "--admin-token-file", &server_keys],
        &["tail", "--from-start", "--no-follow", "--admin", &admin, "--admin-token-file", &token_file],
    ] {
        hear(args.join(" "), &mut cli_support::duragram(args));
    }
    home.wait_lines(4);
    assert!(server.metric("duragram_datagrams_total", "journaled") >= 4.0);
    assert_eq!(server.log().matches("the key file was not taken").count(), 9);
    server.signal("TERM");
    assert!(server.wait().success());
    said.push(("the server's log".to_owned(), fs::read(home.log_path()).unwrap()));

    let derived = fleet.client_key(ClientId(0xa1));
    let digits: Vec<u8> = token.trim_ascii().to_vec();
    let raw_token: Vec<u8> =
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
    let secrets = Secrets::new(&[
        ("the fleet key", fleet.expose()),
        ("a client's own key", own.expose()),
        ("a derived key", derived.expose()),
        ("another server's fleet key", wrong.expose()),
        ("the admin token", &raw_token),
    ]);
    assert!(secrets.find(keys_text.as_bytes()).is_some(), "the search finds nothing");
    assert!(secrets.find(&token).is_some(), "the search finds nothing");
    for (what, text) in &said {
        assert_eq!(secrets.find(text), None, "{what}: {}", String::from_utf8_lossy(text));
    }
    written(&home.disk(), &mut |path, bytes| {
        if path.file_name() != Some("admin-token".as_ref()) {
            // Logs are laid out beforehand, as zeros.
            let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            assert_eq!(secrets.find(&bytes[..end]), None, "{}", path.display());
        }
    });
}

/// Every file below a directory.
fn written(directory: &Path, visit: &mut impl FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            written(&path, visit);
        } else {
            visit(&path, &fs::read(&path).unwrap());
        }
    }
}

/// The keys that a client is given are those that the server derives.
#[test]
fn a_derived_key_is_the_same_at_both_ends() {
    let fleet = FleetKey::new([3; 32]);
    let server = Keys::parse(file::fleet_line(&fleet).as_bytes()).unwrap();
    let Lookup::Key(at_server) = server.lookup(ClientId(5)) else { panic!("no key") };
    let client = Keys::parse(file::client_line(ClientId(5), &fleet.client_key(ClientId(5)), None).as_bytes()).unwrap();
    assert_eq!(client.only_client(), Some(ClientId(5)));
    let Lookup::Key(at_client) = client.lookup(ClientId(5)) else { panic!("no key") };
    assert_eq!(at_server.key.expose(), at_client.key.expose());
}
