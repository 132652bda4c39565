//! Commands whose stdout is gone or full: the exit code tells of what was done, not of who heard of it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};

use crate::cli::support::{FakeServer, TOKEN, duragram, text};
use crate::common::fake::Fake;
use crate::common::server::Home;

/// Something to write to that takes nothing.
#[derive(Clone, Copy, Debug)]
enum Bad {
    /// As of a reader that has gone: EPIPE.
    Closed,
    /// As of a disk that is full: ENOSPC.
    Full,
}

const BAD: [Bad; 2] = [Bad::Closed, Bad::Full];

impl Bad {
    fn stdout(self) -> Stdio {
        match self {
            Self::Closed => {
                let (ours, theirs) = UnixStream::pair().unwrap();
                drop(ours);
                OwnedFd::from(theirs).into()
            }
            Self::Full => File::options().write(true).open("/dev/full").unwrap().into(),
        }
    }

    fn run(self, mut command: Command) -> Output {
        let output = command.stdout(self.stdout()).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        assert!(!text(&output.stderr).contains("panicked"), "{output:?}");
        output
    }
}

fn input(lines: &str) -> Stdio {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines");
    std::fs::write(&path, lines).unwrap();
    // It stays readable after it was removed.
    File::open(path).unwrap().into()
}

#[test]
fn send_ends_by_its_records_and_says_on_stderr_that_it_cannot_report() {
    for bad in BAD {
        for json in [&["--json"][..], &[]] {
            let fake = Fake::start();
            let mut command = duragram(&[&["send", "--server", &fake.addr.to_string()], json].concat());
            command.stdin(input("one\ntwo\n"));
            let output = bad.run(command);
            let stderr = text(&output.stderr);
            assert_eq!(
                output.status.code(),
                Some(0),
                "{bad:?}: all are on disk, so a script must not send again: {stderr}"
            );
            assert_eq!(fake.records().len(), 2);
            assert!(stderr.contains("cannot report on stdout: "), "{stderr}");
        }
        let fake = Fake::start();
        fake.set_silent(true);
        let mut command = duragram(&["send", "--server", &fake.addr.to_string(), "--timeout", "300ms"]);
        command.stdin(input("one\n"));
        assert_eq!(bad.run(command).status.code(), Some(1));
    }
}

#[test]
fn load_ends_by_its_acks() {
    for bad in BAD {
        let fake = Fake::start();
        let address = fake.addr.to_string();
        let args = ["load", "--clients", "1", "--window", "1", "--seconds", "0.2", "--server"];
        let output = bad.run(duragram(&[&args[..], &[&address]].concat()));
        assert_eq!(output.status.code(), Some(0), "{bad:?}: {output:?}");
        assert!(text(&output.stderr).contains("cannot report on stdout: "), "{output:?}");
        fake.set_silent(true);
        let output = bad.run(duragram(&[&args[..], &[&address, "--drain", "0.3", "--json"]].concat()));
        assert_eq!(output.status.code(), Some(1), "{bad:?}: {output:?}");
    }
}

#[test]
fn keys_are_made_and_revoked_whoever_hears_of_it() {
    for bad in BAD {
        let dir = tempfile::tempdir().unwrap();
        let (fleet, derived) = (dir.path().join("keys"), dir.path().join("a1.key"));
        let (fleet, derived) = (fleet.to_str().unwrap(), derived.to_str().unwrap());
        for args in [
            &["keys", "new", "--fleet", fleet][..],
            &["keys", "derive", fleet, "--client", "0xa1", derived],
            &["keys", "revoke", fleet, "0xb1", "0xb2"],
        ] {
            let output = bad.run(duragram(args));
            assert_eq!(output.status.code(), Some(0), "{bad:?} {args:?}: {output:?}");
            assert_eq!(text(&output.stderr).matches("cannot report").count(), 1, "{output:?}");
        }
        assert!(std::fs::read_to_string(fleet).unwrap().contains("revoked 00000000000000b2"));
        // Here the key itself was to be written.
        let output = bad.run(duragram(&["keys", "new", "--fleet", "-"]));
        assert_eq!(output.status.code(), Some(if matches!(bad, Bad::Full) { 1 } else { 0 }), "{output:?}");
    }
}

#[test]
fn dead_letters_are_all_discarded_whoever_hears_of_it() {
    for bad in BAD {
        let server = FakeServer::new();
        (0..5).for_each(|offset| server.put_dead(offset, 0, b"x", "broken"));
        let admin = server.admin(None);
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, TOKEN).unwrap();
        let address = admin.address().to_string();
        let output = bad.run(duragram(&[
            "dead",
            "discard",
            "--all",
            "--admin",
            &address,
            "--admin-token-file",
            token.to_str().unwrap(),
        ]));
        assert_eq!(output.status.code(), Some(0), "{bad:?}: {output:?}");
        assert_eq!(server.dead_count(), 0, "{bad:?}: it does not stop in the middle");
    }
}

#[test]
fn a_journal_is_judged_whoever_hears_of_it_and_a_dump_is_output() {
    let home = Home::new();
    let server = home.serve();
    let mut send = duragram(&["send", "--server", &server.udp.to_string()]);
    send.stdin(input("one\ntwo\n"));
    assert!(send.output().unwrap().status.success());
    server.signal("TERM");
    assert!(server.wait().success());
    let data = home.data();
    let data = data.to_str().unwrap();
    for bad in BAD {
        for json in [&[][..], &["--json"]] {
            let output = bad.run(duragram(&[&["journal", "verify", "--data", data], json].concat()));
            assert_eq!(output.status.code(), Some(0), "{bad:?}: {output:?}");
            assert!(text(&output.stderr).contains("cannot report on stdout"), "{output:?}");
        }
        let code = if matches!(bad, Bad::Full) { 1 } else { 0 };
        for args in [&["journal", "dump", "--data", data][..], &["journal", "stats", "--data", data]] {
            let output = bad.run(duragram(args));
            assert_eq!(output.status.code(), Some(code), "{bad:?} {args:?}: {output:?}");
        }
    }
}

#[test]
fn what_is_output_alone_fails_when_it_cannot_be_written_and_not_when_its_reader_has_enough() {
    let server = FakeServer::new();
    server.commit(b"one");
    let admin = server.admin(None);
    let address = admin.address().to_string();
    for args in [
        &["completions", "bash"][..],
        &["man"],
        &["check-config"],
        &["check-config", "--json"],
        &["tail", "--from-start", "--no-follow", "--admin", &address],
        &["tail", "--from-start", "--no-follow", "--payload", "--admin", &address],
    ] {
        let output = Bad::Closed.run(duragram(args));
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{args:?}");
        let output = Bad::Full.run(duragram(args));
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(text(&output.stderr).contains("cannot write to stdout: No space left"), "{args:?}: {output:?}");
    }
}
