//! `duragram journal` and the offline side of `duragram dead`, the real program on a real data directory.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::support::{entry, letter, outcome};
use duragram::journal::{BlockBuilder, Checkpoint, Journal, Opened, RocksJournal, RocksOptions};
use duragram::model::{LaneMark, Offset, SinkId, SinkLoss, SinkRecord};
use serde_json::{Value, json};
use tempfile::TempDir;

fn open(path: &Path) -> Opened<RocksJournal> {
    RocksJournal::open(path, &RocksOptions::default(), &mut |_| {}).unwrap()
}

/// A journal of three entries in two blocks, all but the last processed, and two dead letters.
fn home() -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("data");
    let mut opened = open(&path);
    let mut block = BlockBuilder::default();
    block.push(&entry(false), b"zero");
    block.push(&entry(true), b"\x03\x00one\x01\x00\xff");
    opened.journal.commit(&mut block, &[]).unwrap();
    block.push(&entry(false), b"two");
    opened.journal.commit(&mut block, &[]).unwrap();
    let lanes = vec![LaneMark { watermark: Offset(2), sink_state: Vec::new() }];
    let checkpoint = Checkpoint { at: Offset(2), lanes, ..Checkpoint::default() };
    opened.journal.checkpoint(&checkpoint).unwrap();
    opened.dead.put(&letter(1, 1, b"\xff", "no paper")).unwrap();
    opened.dead.put(&letter(1, 0, b"one", "no ink")).unwrap();
    (home, path)
}

fn run(args: &[&str], data: &Path) -> (i32, String, String) {
    outcome(&[args, &["--data", data.to_str().unwrap()]].concat())
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text:?}"))
}

/// Every file with its contents.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(contents(&path)) } else { all.push((path.clone(), fs::read(&path).unwrap())) }
    }
    all.sort();
    all
}

#[test]
fn a_sound_journal_is_verified_and_summed_up() {
    let (_home, path) = home();
    let (code, stdout, stderr) = run(&["journal", "verify"], &path);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    assert!(stdout.contains("3, offsets 0 to 2, in 2 blocks"), "{stdout}");
    assert!(stdout.contains("processed below 2; 1 entries to go"), "{stdout}");

    let (code, stdout, _) = run(&["journal", "verify", "--json"], &path);
    let verified = json_of(&stdout);
    assert_eq!((code, &verified["damage"], &verified["stats"]["entries"]), (0, &json!([]), &json!(3)));

    let (code, stdout, _) = run(&["journal", "stats", "--json"], &path);
    let stats = json_of(&stdout);
    assert_eq!((code, &stats), (0, &verified["stats"]));
    let instance = stats["instance"].as_str().unwrap();
    assert!(instance.starts_with("1-") && instance.len() == 18, "the first start, and its nonce: {instance}");
    assert_eq!(stats["offsets"], json!({ "low": 0, "checkpoint": 2, "end": 3 }));
    assert_eq!(stats["lanes"], json!([{ "lane": 0, "watermark": 2, "lag": 1 }]));
    assert_eq!((&stats["dead_letters"], &stats["losses"]), (&json!(2), &json!([])));
    assert!(stats["disk"]["logs_bytes"].as_u64().unwrap() > 0, "{stats}");
}

#[test]
fn each_sink_is_summed_up_with_what_it_has_lost() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("data");
    let mut opened = open(&path);
    let mut block = BlockBuilder::default();
    (0..9).for_each(|_| block.push(&entry(false), b"x"));
    opened.journal.commit(&mut block, &[]).unwrap();
    let loss = |from, to, entries| SinkLoss { from: Offset(from), to: Offset(to), entries, unix_us: 1 };
    let sink = |id, name, watermark| {
        let mark = LaneMark { watermark: Offset(watermark), sink_state: Vec::new() };
        SinkRecord::new(SinkId(id), name, 7, mark, 1)
    };
    let losses = vec![loss(0, 2, 2), loss(3, 6, 2)];
    let away = SinkRecord { holds: false, paused: true, losses, ..sink(0xab, "away", 6) };
    let sinks = vec![sink(1, "events", 9), away];
    opened.journal.checkpoint(&Checkpoint { at: Offset(9), sinks, ..Checkpoint::default() }).unwrap();
    drop(opened);

    let (code, stdout, _) = run(&["journal", "stats", "--json"], &path);
    let expected = json!([
        { "name": "events", "id": "00000000000000000000000000000001", "watermark": 9, "lag": 0, "holds": true,
          "paused": false, "lost_entries": 0 },
        { "name": "away", "id": "000000000000000000000000000000ab", "watermark": 6, "lag": 3, "holds": false,
          "paused": true, "lost_entries": 4 },
    ]);
    assert_eq!((code, &json_of(&stdout)["sinks"]), (0, &expected));
    let (code, stdout, _) = run(&["journal", "verify"], &path);
    assert_eq!(code, 0, "{stdout}");
    let lines: Vec<_> = stdout.lines().filter(|line| line.starts_with("sink ")).collect();
    assert!(lines.len() == 2 && lines[0].ends_with("processed below 9; 0 entries to go"), "{stdout}");
    let told = ["away (000000000000000000000000000000ab)", "detached", "paused", "4 entries are lost to it"];
    assert!(told.iter().all(|part| lines[1].contains(part)), "{stdout}");
}

#[test]
fn entries_are_dumped_as_lines_from_and_to_an_offset() {
    let (_home, path) = home();
    let places = |stdout: &str| -> Vec<(u64, u64)> {
        let place = |line| (json_of(line)["offset"].as_u64().unwrap(), json_of(line)["index"].as_u64().unwrap());
        stdout.lines().map(place).collect()
    };
    let (code, stdout, _) = run(&["journal", "dump"], &path);
    assert_eq!((code, places(&stdout)), (0, vec![(0, 0), (1, 0), (1, 1), (2, 0)]));
    assert_eq!(json_of(stdout.lines().next().unwrap())["payload"], "zero");
    assert_eq!(json_of(stdout.lines().nth(2).unwrap())["payload_base64"], "/w==");
    assert_eq!(places(&run(&["journal", "dump", "--from", "1", "--to", "2"], &path).1), [(1, 0), (1, 1)]);
    assert_eq!(run(&["journal", "dump", "--from", "3"], &path), (0, String::new(), String::new()));
}

#[test]
fn looking_changes_no_byte() {
    let (_home, path) = home();
    let before = contents(&path);
    for args in [
        &["journal", "verify"][..],
        &["journal", "stats"],
        &["journal", "dump"],
        &["dead", "list"],
        &["dead", "show", "1"],
    ] {
        assert_eq!(run(args, &path).0, 0, "{args:?}");
    }
    assert!(contents(&path) == before, "a tool that looks has written");
}

#[test]
fn damage_is_exit_code_3_with_its_place_and_changes_nothing() {
    let (_home, path) = home();
    fs::remove_file(path.join("witness")).unwrap();
    let before = contents(&path);
    let (code, stdout, stderr) = run(&["journal", "verify"], &path);
    assert_eq!(code, 3, "{stdout}{stderr}");
    assert!(stdout.starts_with("damage        the witness is gone or damaged"), "{stdout}");
    assert!(
        stdout.contains("\n  kind        witness\n  where       file `witness`\n  problem     it is missing\n"),
        "{stdout}"
    );
    assert!(stderr.contains("is damaged in 1 place; nothing was changed"), "{stderr}");
    let (code, stdout, _) = run(&["journal", "verify", "--json"], &path);
    let found = &json_of(&stdout)["damage"][0];
    assert_eq!((code, &found["place"], &found["kind"]), (3, &json!("file `witness`"), &json!("witness")));
    for args in
        [&["journal", "stats"][..], &["journal", "dump"], &["dead", "list"], &["dead", "discard", "1"], &["serve"]]
    {
        let (code, stdout, stderr) = run(args, &path);
        assert!(code == 3 && stdout.is_empty() && stderr.contains("damaged"), "{args:?}: {code} {stdout}{stderr}");
    }
    assert!(contents(&path) == before, "a tool that refuses has written");
}

#[test]
fn damage_in_the_log_is_told_with_kind_file_and_byte() {
    let (_home, path) = home();
    let logs = contents(&path).into_iter().filter(|(name, _)| name.extension().is_some_and(|kind| kind == "log"));
    let (log, mut bytes) = logs.max_by_key(|(_, bytes)| bytes.iter().filter(|&&byte| byte != 5).count()).unwrap();
    // In its first record, which holds the first block.
    let at = 40;
    bytes[at] ^= 1;
    fs::write(&log, &bytes).unwrap();
    let (code, stdout, _) = run(&["journal", "verify", "--json"], &path);
    let verified = json_of(&stdout);
    let found = verified["damage"].as_array().unwrap();
    let found = found.iter().find(|damage| damage["kind"] == "good-after-bad").unwrap_or_else(|| panic!("{stdout}"));
    let name = format!("rocksdb/{}", log.file_name().unwrap().to_str().unwrap());
    assert_eq!((code, &found["files"]), (3, &json!([name])), "{stdout}");
    assert!(found["byte"].as_u64().unwrap() > at as u64, "the good record lies behind the damage: {stdout}");
    let (_, stdout, _) = run(&["journal", "verify"], &path);
    assert!(stdout.contains(&format!("  in          {name}, byte {}\n", found["byte"])), "{stdout}");
}

#[test]
fn a_directory_that_is_missing_or_another_programs_or_in_use_is_exit_code_1() {
    let (home, path) = home();
    let other = home.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("thesis.txt"), "years of work").unwrap();
    let missing = home.path().join("missing");
    let _server = open(&path);
    for args in [
        &["journal", "verify"][..],
        &["journal", "stats"],
        &["journal", "dump"],
        &["dead", "list"],
        &["dead", "discard", "1"],
    ] {
        for (dir, told) in [(&missing, "no data directory"), (&other, "not a data directory"), (&path, "in use")] {
            let (code, stdout, stderr) = run(args, dir);
            assert!(code == 1 && stdout.is_empty() && stderr.contains(told), "{args:?}: {code} {stdout}{stderr}");
        }
    }
    assert!(!missing.exists());
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
}

#[test]
fn dead_letters_are_listed_shown_and_discarded_offline() {
    let (_home, path) = home();
    let (code, stdout, _) = run(&["dead", "list", "--json"], &path);
    let errors: Vec<Value> = stdout.lines().map(|line| json_of(line)["error"].clone()).collect();
    assert_eq!((code, errors), (0, vec![json!("no ink"), json!("no paper")]));
    assert_eq!(json_of(&run(&["dead", "show", "1/1"], &path).1)["payload_base64"], "/w==");

    let (code, stdout, stderr) = run(&["dead", "discard", "1/1", "7"], &path);
    assert_eq!((code, stdout.as_str()), (1, "1/1 discarded\n"));
    assert_eq!(stderr, "duragram: 7/0: there is no dead letter 7/0\nduragram: 1 of 2 not discarded\n");
    let (code, stdout, _) = run(&["dead", "discard", "--all"], &path);
    assert_eq!((code, stdout.as_str()), (0, "1/0 discarded\n"));
    assert_eq!(open(&path).dead.count(), 0);
}
