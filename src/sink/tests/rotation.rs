//! Tests of the sinks' files that somebody renames, replaces, cuts or deletes while the server runs or between two runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::{directory, offsets, record, write_some};
use crate::model::{LaneMark, Offset};

#[test]
fn after_rotation_and_sighup_lines_go_to_the_new_file_and_a_crash_doubles_none() {
    let dir = directory();
    let (path, rotated) = (dir.path().join("out"), dir.path().join("out.1"));
    let mut sink = write_some(&path);
    let stored = sink.mark.clone();
    let before: Vec<_> = (40..50).map(|offset| record(offset, b"before")).collect();
    let after: Vec<_> = (50..60).map(|offset| record(offset, b"after")).collect();
    sink.present(&before);
    sink.flush(50);
    fs::rename(&path, &rotated).unwrap();
    sink.handler.reopen().unwrap();
    sink.flush(50);
    sink.present(&after);
    sink.flush(60);
    sink.mark = stored;
    sink.start().unwrap();
    sink.present(&[before, after].concat());
    sink.flush(60);
    assert_eq!(offsets(&rotated), (0..50).collect::<Vec<_>>());
    assert_eq!(offsets(&path), (50..60).collect::<Vec<_>>());
}

#[test]
fn a_file_that_was_renamed_while_the_server_was_down_is_read_where_it_is_now() {
    let dir = directory();
    let (path, rotated) = (dir.path().join("out"), dir.path().join("out.1"));
    let mut sink = write_some(&path);
    let stored = sink.mark.clone();
    let more: Vec<_> = (40..50).map(|offset| record(offset, b"y")).collect();
    sink.present(&more);
    sink.flush(50);
    sink.kill();
    fs::rename(&path, &rotated).unwrap();
    sink.mark = stored;
    sink.start().unwrap();
    sink.present(&more);
    sink.present(&[record(50, b"new")]);
    sink.flush(51);
    assert_eq!(offsets(&rotated), (0..50).collect::<Vec<_>>());
    assert_eq!(offsets(&path), [50]);
}

#[test]
fn a_reopen_that_fails_goes_on_with_the_file_that_is_open() {
    let dir = directory();
    let (path, rotated) = (dir.path().join("out"), dir.path().join("out.1"));
    let mut sink = write_some(&path);
    fs::rename(&path, &rotated).unwrap();
    fs::create_dir(&path).unwrap();
    sink.handler.reopen().unwrap_err();
    sink.present(&[record(40, b"y")]);
    sink.flush(41);
    assert_eq!(offsets(&rotated), (0..41).collect::<Vec<_>>());
    fs::remove_dir(&path).unwrap();
    sink.handler.reopen().unwrap();
    sink.present(&[record(41, b"z")]);
    sink.flush(42);
    assert_eq!(offsets(&path), [41]);
}

/// Puts something else in the file's place.
type Deed = fn(&Path);

#[test]
fn a_file_that_is_deleted_or_replaced_is_made_anew_and_no_line_goes_where_nobody_can_read_it() {
    let deeds: [(&str, Deed); 3] = [
        ("deleted", |path| fs::remove_file(path).unwrap()),
        ("replaced", |path| {
            fs::write(path.with_extension("new"), "a note\n").unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        }),
        ("deleted and made again, perhaps with the same number", |path| {
            fs::remove_file(path).unwrap();
            fs::write(path, "").unwrap();
        }),
    ];
    for (what, deed) in deeds {
        for reopened in [false, true] {
            let dir = directory();
            let path = dir.path().join("out");
            let mut sink = write_some(&path);
            let stored = sink.mark.clone();
            sink.present(&(40..50).map(|offset| record(offset, b"y")).collect::<Vec<_>>());
            deed(&path);
            if reopened {
                sink.handler.reopen().unwrap();
            }
            sink.flush(50);
            let ours = || {
                let text = fs::read_to_string(&path).unwrap();
                let text = text.strip_prefix("a note\n").unwrap_or(&text).to_owned();
                fs::write(path.with_extension("ours"), text).unwrap();
                offsets(&path.with_extension("ours"))
            };
            assert_eq!(ours(), (40..50).collect::<Vec<_>>(), "{what}");
            // A crash before a checkpoint knows of the new file doubles none.
            sink.mark = stored;
            sink.start().unwrap();
            sink.present(&(40..60).map(|offset| record(offset, b"y")).collect::<Vec<_>>());
            sink.flush(60);
            let ours = ours();
            assert_eq!(ours.iter().filter(|&&offset| offset >= 50).count(), 10, "{what}: {ours:?}");
            assert_eq!(ours, (40..60).collect::<Vec<_>>(), "{what}");
        }
    }
}

#[test]
fn what_is_no_file_in_a_deleted_files_place_is_told_and_its_lines_wait_for_a_file() {
    let deeds: [(&str, Deed); 3] = [
        ("FIFO", |path| mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap()),
        ("device", |path| symlink("/dev/null", path).unwrap()),
        ("directory", |path| fs::create_dir(path).unwrap()),
    ];
    for (what, deed) in deeds {
        let dir = directory();
        let path = dir.path().join("out");
        let mut sink = write_some(&path);
        fs::remove_file(&path).unwrap();
        deed(&path);
        sink.present(&[record(40, b"y")]);
        for _ in 0..2 {
            let error = sink.handler.flush().unwrap_err().to_string();
            assert!(error.contains(what) && error.contains(&path.display().to_string()), "{error}");
            let error = sink.handler.reopen().unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        fs::rename(&path, dir.path().join("other")).unwrap();
        sink.flush(41);
        assert_eq!(offsets(&path), [40], "{what}");
    }
}

#[test]
fn without_its_directory_a_file_waits_and_goes_on_when_it_is_back() {
    let dir = directory();
    let inner = dir.path().join("logs");
    fs::create_dir(&inner).unwrap();
    let path = inner.join("out");
    let mut sink = write_some(&path);
    fs::remove_dir_all(&inner).unwrap();
    sink.present(&(40..50).map(|offset| record(offset, b"y")).collect::<Vec<_>>());
    for _ in 0..3 {
        let error = sink.handler.flush().unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()) && error.contains("deleted"), "{error}");
    }
    fs::create_dir(&inner).unwrap();
    sink.flush(50);
    assert_eq!(offsets(&path), (40..50).collect::<Vec<_>>());
}

#[test]
fn a_file_that_was_renamed_is_written_to_on_until_somebody_deletes_it() {
    let dir = directory();
    let (path, rotated) = (dir.path().join("out"), dir.path().join("out.1"));
    let mut sink = write_some(&path);
    fs::rename(&path, &rotated).unwrap();
    sink.present(&[record(40, b"y")]);
    sink.flush(41);
    assert_eq!(offsets(&rotated), (0..41).collect::<Vec<_>>());
    assert!(!path.exists());
    // gzip has replaced it.
    fs::remove_file(&rotated).unwrap();
    sink.present(&[record(41, b"y")]);
    sink.flush(42);
    assert_eq!(offsets(&path), [41]);
}

#[test]
fn a_file_that_is_cut_is_written_to_on_at_its_end() {
    let dir = directory();
    let path = dir.path().join("out");
    let mut sink = write_some(&path);
    fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    sink.present(&[record(40, b"y")]);
    sink.flush(41);
    assert_eq!(offsets(&path), [40]);
}

#[test]
fn lines_of_several_lanes_that_wrote_together_are_found_also_in_a_renamed_file() {
    // At the last checkpoint all lanes were in the old file, or one had the new one already.
    for one_had_reopened in [false, true] {
        let dir = directory();
        let (path, rotated) = (dir.path().join("out"), dir.path().join("out.1"));
        let mut sink = write_some(&path);
        let mut lanes = vec![sink.mark.clone(); 3];
        let more: Vec<_> = (40..60).map(|offset| record(offset, b"y")).collect();
        sink.present(&more[..10]);
        sink.flush(50);
        fs::rename(&path, &rotated).unwrap();
        sink.handler.reopen().unwrap();
        sink.flush(50);
        if one_had_reopened {
            lanes[1] = sink.mark.clone();
        }
        sink.present(&more[10..]);
        sink.flush(60);
        (sink.left, sink.mark) = (lanes, LaneMark { watermark: Offset(40), sink_state: Vec::new() });
        // And once more before the lane has passed these lines, then with a state of its own.
        sink.start().unwrap();
        sink.flush(40);
        sink.left.clear();
        sink.start().unwrap();
        sink.present(&more);
        sink.present(&[record(60, b"new")]);
        sink.flush(61);
        assert_eq!(offsets(&rotated), (0..50).collect::<Vec<_>>());
        assert_eq!(offsets(&path), (50..61).collect::<Vec<_>>());
    }
}
