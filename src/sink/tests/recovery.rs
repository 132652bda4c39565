//! Tests of the sinks' files after a crash: nothing lost, nothing twice, nothing of others touched.

use std::fs;

use super::{Sink, directory, file_spec, offsets, record, write_some};
use crate::model::{LaneMark, Offset};
use crate::record_json::Formatter;

#[test]
fn what_was_written_after_the_last_checkpoint_is_not_written_again() {
    let dir = directory();
    let path = dir.path().join("out");
    let mut sink = write_some(&path);
    let stored = sink.mark.clone();
    let more: Vec<_> = (40..60).map(|offset| record(offset, b"y")).collect();
    sink.present(&more);
    sink.flush(60);
    sink.present(&[record(60, b"never flushed")]);
    sink.mark = stored;
    sink.start().unwrap();
    sink.present(&more);
    sink.present(&[record(60, b"never flushed"), record(61, b"new")]);
    sink.flush(62);
    assert_eq!(offsets(&path), (0..62).collect::<Vec<_>>());
}

#[test]
fn a_crash_while_lines_come_again_finds_them_once_more() {
    let dir = directory();
    let path = dir.path().join("out");
    let mut sink = write_some(&path);
    let stored = sink.mark.clone();
    let more: Vec<_> = (40..60).map(|offset| record(offset, b"y")).collect();
    sink.present(&more);
    sink.flush(60);
    sink.mark = stored;
    for (from, to) in [(0, 5), (5, 10), (10, 15), (15, 20)] {
        sink.start().unwrap();
        sink.flush(40 + from as u64);
        sink.present(&more[from..to]);
        sink.flush(40 + to as u64);
    }
    assert_eq!(offsets(&path), (0..60).collect::<Vec<_>>());
}

#[test]
fn a_crash_before_the_first_checkpoint_is_no_exception() {
    let dir = directory();
    let path = dir.path().join("out");
    fs::write(&path, "a note of the operator's\n").unwrap();
    let mut sink = write_some(&path);
    sink.mark = LaneMark::default();
    sink.start().unwrap();
    sink.present(&(0..50).map(|offset| record(offset, b"x")).collect::<Vec<_>>());
    sink.flush(50);
    let text = fs::read_to_string(&path).unwrap();
    let (note, lines) = text.split_once('\n').unwrap();
    assert_eq!((note, lines.lines().count()), ("a note of the operator's", 50));
}

#[test]
fn lines_of_another_journal_with_the_same_offsets_keep_nothing_out() {
    let dir = directory();
    let path = dir.path().join("out");
    drop(write_some(&path));
    // The data directory was emptied; the new journal's first forty records were never processed before a crash.
    let mut sink = Sink::open(&file_spec(&path));
    sink.durable_end = Offset(40);
    sink.start().unwrap();
    sink.present(&(0..40).map(|offset| record(offset, b"other")).collect::<Vec<_>>());
    sink.flush(40);
    assert_eq!(offsets(&path).len(), 80);
}

#[test]
fn a_torn_last_line_is_cut_and_its_record_written_again() {
    let dir = directory();
    let path = dir.path().join("out");
    let line = {
        let mut line = Vec::new();
        Formatter::default().line(&record(40, "torn \u{1f980}".as_bytes()), &mut line);
        line
    };
    for known in [true, false] {
        for end in 1..line.len() {
            fs::remove_file(&path).ok();
            let mut sink = write_some(&path);
            let mut bytes = fs::read(&path).unwrap();
            bytes.extend_from_slice(&line[..end]);
            sink.kill();
            fs::write(&path, &bytes).unwrap();
            sink.durable_end = Offset(41);
            if !known {
                sink.mark.sink_state.clear();
            }
            sink.start().unwrap();
            sink.present(&[record(40, "torn \u{1f980}".as_bytes())]);
            sink.flush(41);
            assert_eq!(offsets(&path), (0..41).collect::<Vec<_>>(), "torn after {end} bytes");
        }
    }
}

#[test]
fn holes_that_a_power_cut_left_behind_what_was_synced_are_cut() {
    let dir = directory();
    let path = dir.path().join("out");
    let mut sink = write_some(&path);
    let stored = sink.mark.clone();
    let more: Vec<_> = (40..50).map(|offset| record(offset, b"y")).collect();
    sink.present(&more);
    sink.flush(50);
    sink.kill();
    let mut bytes = fs::read(&path).unwrap();
    let hole = bytes.len() - 700;
    bytes[hole..hole + 100].fill(0);
    bytes.extend_from_slice(&[0; 5000]);
    fs::write(&path, &bytes).unwrap();
    sink.mark = stored;
    sink.start().unwrap();
    sink.present(&more);
    sink.flush(50);
    assert_eq!(offsets(&path), (0..50).collect::<Vec<_>>());
}

#[test]
fn nothing_of_somebody_elses_is_cut_or_overwritten() {
    let dir = directory();
    for foreign in ["text without an end", "{\"offset\":1}", "[\n{", "\0\0\0", "text\n", "{\"offset\":1}\n{\"off"] {
        let path = dir.path().join("foreign");
        fs::write(&path, foreign).unwrap();
        let mut sink = write_some(&path);
        let text = fs::read_to_string(&path).unwrap();
        let rest = text.strip_prefix(foreign).unwrap_or_else(|| panic!("{foreign:?} is gone"));
        assert_eq!(rest.trim_start_matches('\n').lines().count(), 40, "{foreign:?}");
        assert!(foreign.ends_with('\n') || rest.starts_with('\n'));
        sink.start().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}
