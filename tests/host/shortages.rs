//! Where the system grants too little: a sentence that says what to raise, and nothing begun.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::common::server::{Home, Server, duragram};
use crate::common::wire::Wire;

/// What ends before it is ready: exit code and the last line of its log.
fn refused(home: &Home, limits: &[&str], as_user: bool) -> (Option<i32>, String) {
    let plain = home.command(&home.data());
    let mut command = Command::new("prlimit");
    command.args(limits);
    let mut program = PathBuf::from(plain.get_program());
    if as_user {
        // The build may lie where nobody else may look.
        let copy = home.path().join("duragram");
        if !copy.exists() {
            fs::copy(&program, &copy).unwrap();
        }
        program = copy;
        command.args(["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]);
    }
    command.arg(program).args(plain.get_args());
    let status = Server::try_start(home, command).map(|_| "it is ready").unwrap_err();
    let log = fs::read_to_string(home.log_path()).unwrap();
    (status.code(), log.lines().last().unwrap_or_default().to_owned())
}

#[test]
fn a_start_that_gets_too_little_memory_ends_with_a_sentence_and_exit_code_1() {
    let home = Home::new();
    for (limit, told) in [
        ("--as=62914560", "ulimit -v"),
        ("--as=209715200", "ulimit -v"),
        ("--as=1048576000", "ulimit -v"),
        ("--data=16777216", "ulimit -d"),
        ("--data=83886080", "ulimit -d"),
        ("--stack=131072", "ulimit -s"),
    ] {
        let (code, line) = refused(&home, &[limit], false);
        assert!(
            code == Some(1) && line.contains("address space") | line.contains("stacks"),
            "{limit}: {code:?} {line}"
        );
        assert!(line.contains(told), "{limit}: {line}");
    }
    assert!(!home.data().exists(), "nothing was begun");
}

#[test]
fn a_start_that_gets_too_few_threads_ends_with_a_sentence_and_exit_code_1() {
    if !fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0\t") {
        eprintln!("SKIPPED: it takes root to be another user, whose threads are limited");
        return;
    }
    let home = Home::new();
    for path in [home.path().to_owned(), home.disk()] {
        std::os::unix::fs::chown(path, Some(54_321), Some(54_321)).unwrap();
    }
    for threads in [1, 2, 5, 10, 20, 30] {
        let (code, line) = refused(&home, &[&format!("--nproc={threads}")], true);
        assert!(code == Some(1) && line.contains("ulimit -u"), "{threads} threads: {code:?} {line}");
    }
    assert!(!home.data().exists(), "nothing was begun");
}

#[test]
fn a_look_into_a_journal_that_gets_too_little_ends_with_a_sentence_and_exit_code_1() {
    let home = Home::new();
    assert!(home.serve().terminate().success());
    for (limit, told) in
        [("--as=209715200", "ulimit -v"), ("--data=83886080", "ulimit -d"), ("--nofile=16:16", "ulimit -n")]
    {
        for command in ["verify", "stats", "dump"] {
            let mut limited = Command::new("prlimit");
            limited.arg(limit).arg(duragram().get_program()).args(["journal", command, "--data"]).arg(home.data());
            let output = limited.output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(1) && stderr.contains(told), "{limit} {command}: {stderr}");
        }
    }
}

#[test]
fn a_sender_that_gets_too_few_threads_ends_with_a_sentence_and_exit_code_1() {
    if !fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0\t") {
        eprintln!("SKIPPED: it takes root to be another user, whose threads are limited");
        return;
    }
    let home = Home::new();
    let binary = home.path().join("duragram");
    fs::copy(duragram().get_program(), &binary).unwrap();
    std::os::unix::fs::chown(home.path(), Some(54_322), Some(54_322)).unwrap();
    for threads in [1, 2] {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nproc={threads}")).args(["setpriv", "--reuid=54322", "--regid=54322", "--clear-groups"]);
        let output =
            command.arg(&binary).args(["send", "--server", "127.0.0.1:9"]).stdin(Stdio::null()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && stderr.contains("cannot start its threads"), "{stderr}");
    }
}

#[test]
fn no_memory_needs_to_be_locked() {
    let home = Home::new();
    let plain = home.command(&home.data());
    let mut command = Command::new("prlimit");
    command.arg("--memlock=0").arg(plain.get_program()).args(plain.get_args());
    let server = Server::try_start(&home, command).unwrap();
    let wire = Wire::new(&server, 1);
    assert_eq!(wire.ask_ack(&wire.data(1, b"one")).floor, 1);
    assert!(server.terminate().success());
}
