//! A damaged journal is refused and left as it is; given up on request, the server goes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::common::server::Home;
use crate::common::wire::Wire;

/// Every file below a directory, with its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

#[test]
fn a_journal_that_lost_acked_data_is_refused_and_serves_on_when_the_loss_is_accepted() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 0x51);
    for seq in 1..=50 {
        wire.ask_ack(&wire.data(seq, b"a reading"));
    }
    home.wait_lines(50);
    assert!(server.terminate().success());

    // All of it is still in the write-ahead logs.
    let logs: Vec<_> =
        contents(&home.data()).into_keys().filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    assert!(!logs.is_empty());
    for log in &logs {
        fs::write(log, b"").unwrap();
    }
    let before = contents(&home.data());
    let refused = home.command(&home.data()).stdin(Stdio::null()).output().unwrap();
    assert_eq!(refused.status.code(), Some(3), "{}", String::from_utf8_lossy(&refused.stderr));
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("damaged") && message.contains("--accept-loss"), "{message}");
    assert_eq!(contents(&home.data()), before, "a refusal changes nothing");

    let mut lines = 50;
    for flags in [&["--accept-loss"][..], &[], &[]] {
        let server = home.serve_with(flags);
        let wire = Wire::in_epoch(&server, 0x51, 2 + u32::try_from(lines).unwrap());
        for seq in 1..=10 {
            wire.ask_ack(&wire.data(seq, b"a later reading"));
        }
        lines += 10;
        let seen = home.wait_lines(lines);
        assert_eq!(seen.len(), lines);
        let mut offsets: Vec<_> = seen.iter().map(|line| line.offset).collect();
        offsets.dedup();
        assert_eq!(offsets.len(), lines, "no offset is used twice");
        assert!(server.terminate().success());
    }
}
