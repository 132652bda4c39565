use std::os::unix::fs::PermissionsExt as _;

use super::files::with_checksum;
use super::identity::IDENTITY;
use super::marker::{LOST_AND_FOUND, MARKER_1, marker_of};
use super::witness::WITNESS;
use super::*;
use crate::journal::rocksdb::database::is_of_a_journal;
use crate::model::Offset;

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_directory_is_claimed_once_at_a_time() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("data");
    let held = DataDir::claim(&path, is_of_a_journal).unwrap();
    assert_eq!(DataDir::claim(&path, is_of_a_journal).unwrap_err(), OpenError::Locked { path: path.clone() });
    assert_eq!(DataDir::inspect(&path, is_of_a_journal).unwrap_err(), OpenError::Locked { path: path.clone() });
    drop(held);
    let tools = [DataDir::inspect(&path, is_of_a_journal).unwrap(), DataDir::inspect(&path, is_of_a_journal).unwrap()];
    assert_eq!(DataDir::claim(&path, is_of_a_journal).unwrap_err(), OpenError::Locked { path: path.clone() });
    drop(tools);
    DataDir::claim(&path, is_of_a_journal).unwrap();
}

#[test]
fn a_directory_of_another_program_is_refused_and_left_as_it_is() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("base.ldb"), "x").unwrap();
    for result in [DataDir::claim(temp.path(), is_of_a_journal), DataDir::inspect(temp.path(), is_of_a_journal)] {
        let error = result.unwrap_err();
        assert!(matches!(&error, OpenError::NotOurs { found, .. } if found.contains("base.ldb")), "{error}");
    }
    assert_eq!(names(temp.path()), ["base.ldb"]);
    let file = temp.path().join("base.ldb");
    assert!(matches!(DataDir::claim(&file, is_of_a_journal), Err(OpenError::NotOurs { .. })));
}

#[test]
fn an_interrupted_first_start_leaves_a_directory_that_the_second_takes() {
    for left in [&[][..], &[LOCK], &[LOCK, "DURAGRAM.new"], &[LOST_AND_FOUND]] {
        let temp = tempfile::tempdir().unwrap();
        left.iter().for_each(|name| fs::write(temp.path().join(name), "").unwrap());
        DataDir::claim(temp.path(), is_of_a_journal).unwrap();
        DataDir::inspect(temp.path(), is_of_a_journal).unwrap();
    }
}

#[test]
fn a_missing_parent_a_newer_format_and_a_damaged_marker_have_their_own_errors() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a/b");
    assert_eq!(DataDir::claim(&path, is_of_a_journal).unwrap_err(), OpenError::MissingParent { path: path.clone() });
    assert_eq!(DataDir::inspect(&path, is_of_a_journal).unwrap_err(), OpenError::Missing { path });

    let path = temp.path().join("data");
    drop(DataDir::claim(&path, is_of_a_journal).unwrap());
    let format = |text: &str| {
        fs::write(path.join(MARKER), text).unwrap();
        DataDir::claim(&path, is_of_a_journal).unwrap().format()
    };
    assert_eq!(format(&marker_of(6)), Format::Newer(6));
    assert_eq!(format(&marker_of(5)), Format::Known);
    assert_eq!(format(&marker_of(4)), Format::Known);
    assert_eq!(format(&marker_of(3)), Format::Known);
    assert_eq!(format(&marker_of(2)), Format::Known);
    // Format 1 had no checksum.
    assert_eq!(format(&marker_of(1)), Format::Older(1));
    assert_eq!(format(&marker_of(0)), Format::Older(0));
    for text in ["", "duragram", "duragram data directory, format 2\n", "duragram data directory, format 1"] {
        assert_eq!(format(text), Format::Unreadable, "{text:?}");
    }
    assert_eq!(format("duragram data directory, format 1\n"), Format::Known);
}

#[test]
fn a_directory_of_an_earlier_format_is_marked_anew_and_no_other_is() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("data");
    let dir = DataDir::claim(&path, is_of_a_journal).unwrap();
    let read = || fs::read_to_string(path.join(MARKER)).unwrap();
    let new = read();
    assert!(new.starts_with("duragram data directory, format 5 crc32 "), "{new}");
    assert_eq!(marker_of(2), "duragram data directory, format 2 crc32 3673a0d9\n", "as earlier versions wrote it");
    assert_eq!(marker_of(3), "duragram data directory, format 3 crc32 4174904f\n", "as earlier versions wrote it");
    assert_eq!(marker_of(4), "duragram data directory, format 4 crc32 df1005ec\n", "as earlier versions wrote it");
    let later = marker_of(6);
    let former = [marker_of(2), marker_of(3), marker_of(4)];
    let [of_2, of_3, of_4] = [&former[0], &former[1], &former[2]].map(String::as_str);
    let all = [
        (MARKER_1, new.as_str()),
        (of_2, &new),
        (of_3, &new),
        (of_4, &new),
        (&new, &new),
        (&later, &later),
        ("else", "else"),
    ];
    for (old, marked) in all {
        fs::write(path.join(MARKER), old).unwrap();
        dir.mark_anew().unwrap();
        assert_eq!(read(), marked);
    }
    fs::remove_file(path.join(MARKER)).unwrap();
    assert!(dir.mark_anew().is_err(), "what it says now is not known: nothing may be written");
    assert!(!path.join(MARKER).exists(), "a marker is not made up");
    drop(dir);
    fs::write(path.join(MARKER), "else").unwrap();
    DataDir::claim(&path, is_of_a_journal).unwrap().mark_anew().unwrap();
    assert_eq!(read(), "else", "an unreadable marker is replaced when a loss is accepted, not here");
}

#[test]
fn a_directory_without_its_marker_is_still_ours_when_all_names_in_it_are() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::claim(temp.path(), is_of_a_journal).unwrap();
    dir.write_witness(Witness::NotInService).unwrap();
    fs::create_dir(dir.database()).unwrap();
    drop(dir);
    fs::remove_file(temp.path().join(MARKER)).unwrap();
    assert_eq!(DataDir::claim(temp.path(), is_of_a_journal).unwrap().format(), Format::Unreadable);
    assert!(!temp.path().join(MARKER).exists(), "a marker is not made up");
    assert_eq!(DataDir::inspect(temp.path(), is_of_a_journal).unwrap().format(), Format::Unreadable);
    for name in ["admin-token", "witness.new", "rocksdb.damaged-7", "journal-id"] {
        fs::write(temp.path().join(name), "").unwrap();
    }
    fs::write(temp.path().join(WITNESS), "damaged").unwrap();
    assert_eq!(DataDir::claim(temp.path(), is_of_a_journal).unwrap().format(), Format::Unreadable);
    fs::write(temp.path().join("notes.txt"), "").unwrap();
    assert!(
        matches!(DataDir::claim(temp.path(), is_of_a_journal), Err(OpenError::NotOurs { .. })),
        "nothing proves that it is ours"
    );
}

#[test]
fn a_directory_without_its_marker_is_ours_whatever_lies_in_it_when_one_thing_in_it_proves_that() {
    for proof in [WITNESS, IDENTITY] {
        let temp = tempfile::tempdir().unwrap();
        let mut dir = DataDir::claim(temp.path(), is_of_a_journal).unwrap();
        match proof {
            WITNESS => dir.write_witness(Witness::NotInService).unwrap(),
            _ => drop(dir.begin_instance().unwrap()),
        }
        drop(dir);
        fs::remove_file(temp.path().join(MARKER)).unwrap();
        fs::write(temp.path().join("notes.txt"), "").unwrap();
        assert_eq!(DataDir::claim(temp.path(), is_of_a_journal).unwrap().format(), Format::Unreadable, "{proof}");
        assert_eq!(DataDir::inspect(temp.path(), is_of_a_journal).unwrap().format(), Format::Unreadable, "{proof}");
        fs::write(temp.path().join(proof), "of another program").unwrap();
        let before = names(temp.path());
        assert!(matches!(DataDir::claim(temp.path(), is_of_a_journal), Err(OpenError::NotOurs { .. })), "{proof}");
        assert_eq!(names(temp.path()), before);
    }
}

#[test]
fn another_programs_directory_with_a_file_that_is_named_as_one_of_ours_stays_as_it_is() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join(WITNESS), "of a trial").unwrap();
    for _ in 0..2 {
        let before = names(temp.path());
        assert!(matches!(DataDir::claim(temp.path(), is_of_a_journal), Err(OpenError::NotOurs { .. })));
        assert!(matches!(DataDir::inspect(temp.path(), is_of_a_journal), Err(OpenError::NotOurs { .. })));
        assert_eq!(names(temp.path()), before);
        fs::create_dir_all(temp.path().join("lost+found")).unwrap();
    }
}

#[test]
fn the_admin_token_is_known_by_its_name() {
    assert_eq!(ADMIN_TOKEN, crate::admin::TOKEN_FILE);
}

#[test]
fn a_journal_has_one_name_forever_unless_that_is_lost_and_each_start_its_own_instance() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("data");
    let mut dir = DataDir::claim(&path, is_of_a_journal).unwrap();
    assert_eq!((dir.id(), dir.instance()), (None, None));
    let (id, first) = dir.begin_instance().unwrap();
    assert_eq!((dir.id(), dir.instance(), first.number), (Some(id), Some(first), 1));
    drop(dir);
    let seen = DataDir::inspect(&path, is_of_a_journal).unwrap();
    assert_eq!((seen.id(), seen.instance()), (Some(id), Some(first)), "looking begins none");
    drop(seen);
    let (same, second) = DataDir::claim(&path, is_of_a_journal).unwrap().begin_instance().unwrap();
    assert_eq!((same, second.number), (id, 2));
    assert_ne!(second.nonce, first.nonce);
    fs::write(path.join(IDENTITY), "journal 00 crc32 00000000\n").unwrap();
    let (new, instance) = DataDir::claim(&path, is_of_a_journal).unwrap().begin_instance().unwrap();
    assert_ne!(new, id);
    assert_eq!(instance.number, 1);
    assert_eq!(DataDir::inspect(&path, is_of_a_journal).unwrap().id(), Some(new));
}

#[test]
fn a_name_from_before_instances_is_kept_and_any_change_of_the_file_is_seen() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("data");
    let mut dir = DataDir::claim(&path, is_of_a_journal).unwrap();
    let name = "0123456789abcdef0123456789abcdef";
    fs::write(path.join(IDENTITY), with_checksum(&format!("journal {name}"))).unwrap();
    assert_eq!(
        read_identity(&path).map(|identity| (identity.id.to_string(), identity.instance)),
        Some((name.into(), None))
    );
    dir.identity = read_identity(&path);
    let (id, instance) = dir.begin_instance().unwrap();
    assert_eq!((id.to_string(), instance.number), (name.into(), 1));
    let good = fs::read(path.join(IDENTITY)).unwrap();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            fs::write(path.join(IDENTITY), bad).unwrap();
            assert_eq!(read_identity(&path), None, "bit {bit} of byte {at}");
        }
        fs::write(path.join(IDENTITY), &good[..at]).unwrap();
        assert_eq!(read_identity(&path), None, "cut to {at} bytes");
    }
}

#[test]
fn what_is_made_is_for_its_user_alone_and_what_others_were_given_is_taken_back() {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("data");
    let mut dir = DataDir::claim(&path, is_of_a_journal).unwrap();
    dir.write_witness(Witness::NotInService).unwrap();
    dir.begin_instance().unwrap();
    assert_eq!(mode(&path), 0o700);
    for name in [MARKER, LOCK, WITNESS, IDENTITY] {
        assert_eq!(mode(&path.join(name)), 0o600, "{name}");
    }
    // As an earlier version leaves them under umask 0, and an orchestrator that gives the group everything.
    fs::create_dir(dir.database()).unwrap();
    let ours = [path.clone(), path.join(WITNESS), dir.database(), dir.database().join("000004.log"), path.join(MARKER)];
    fs::write(&ours[3], "").unwrap();
    fs::write(path.join("out.ndjson"), "").unwrap();
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    ours.iter().for_each(|path| set(path, if path.is_dir() { 0o2777 } else { 0o666 }));
    set(&path.join("out.ndjson"), 0o644);
    dir.mend_modes();
    for path in &ours {
        assert_eq!(mode(path), if path.is_dir() { 0o2770 } else { 0o660 }, "{}", path.display());
    }
    assert_eq!(mode(&path.join("out.ndjson")), 0o644, "it is not ours");
}

#[test]
fn what_becomes_of_the_directory_under_its_server_is_seen() {
    let start = || {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data");
        let dir = DataDir::claim(&path, is_of_a_journal).unwrap();
        dir.write_witness(Witness::NotInService).unwrap();
        assert_eq!((dir.lost(), dir.lost_witness(Witness::NotInService)), (None, None));
        (temp, path, dir)
    };
    let lost = |change: &dyn Fn(&Path)| {
        let (_temp, path, dir) = start();
        change(&path);
        dir.lost().or_else(|| dir.lost_witness(Witness::NotInService)).unwrap_or_default()
    };
    let told = [
        lost(&|path| fs::remove_dir_all(path).unwrap()),
        lost(&|path| fs::rename(path, path.with_extension("away")).unwrap()),
        lost(&|path| {
            fs::rename(path, path.with_extension("away")).unwrap();
            fs::create_dir(path).unwrap();
        }),
        lost(&|path| fs::remove_file(path.join(LOCK)).unwrap()),
        lost(&|path| {
            fs::remove_file(path.join(LOCK)).unwrap();
            fs::write(path.join(LOCK), "").unwrap();
        }),
        lost(&|path| fs::remove_file(path.join(MARKER)).unwrap()),
        lost(&|path| fs::write(path.join(MARKER), MARKER_1).unwrap()),
        lost(&|path| fs::remove_file(path.join(WITNESS)).unwrap()),
        lost(&|path| fs::write(path.join(WITNESS), "").unwrap()),
    ];
    let whole = ["deleted or renamed", "deleted or renamed", "is another one now"];
    for (told, what) in told.iter().zip(whole) {
        assert!(told.starts_with("the data directory") && told.contains(what), "{told}");
    }
    let single = [
        ("`lock`", "deleted"),
        ("`lock`", "another one"),
        ("`DURAGRAM`", "deleted"),
        ("`DURAGRAM`", "not what was written"),
        ("`witness`", "deleted"),
        ("`witness`", "not what was written"),
    ];
    for (told, (name, what)) in told[whole.len()..].iter().zip(single) {
        assert!(told.starts_with(name) && told.contains(what), "{told}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    // Nobody creates directories there, root neither.
    let error = DataDir::claim(Path::new("/sys/duragram-test"), is_of_a_journal).unwrap_err();
    assert!(matches!(error, OpenError::NotWritable { .. }), "{error}");
}

#[test]
fn a_witness_is_read_as_written_or_its_damage_is_seen() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::claim(temp.path(), is_of_a_journal).unwrap();
    assert_eq!(dir.witness(), Ok(None));
    let numbers = [0, 7, u64::MAX].map(|n| Witness::Durable { end: Offset(n), changes: n / 2 });
    for witness in numbers.into_iter().chain([Witness::NotInService]) {
        dir.write_witness(witness).unwrap();
        assert_eq!(dir.witness(), Ok(Some(witness)));
    }
    // As version 0.1.0 wrote it.
    fs::write(temp.path().join(WITNESS), "end 1234 crc32 cea31bf9\n").unwrap();
    assert_eq!(dir.witness(), Ok(Some(Witness::Durable { end: Offset(1234), changes: 0 })));
    dir.write_witness(Witness::Durable { end: Offset(1234), changes: 56 }).unwrap();
    let good = fs::read(temp.path().join(WITNESS)).unwrap();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            fs::write(temp.path().join(WITNESS), bad).unwrap();
            assert!(dir.witness().is_err(), "bit {bit} of byte {at}");
        }
        fs::write(temp.path().join(WITNESS), &good[..at]).unwrap();
        assert!(dir.witness().is_err(), "cut to {at} bytes");
    }
}

#[test]
fn a_new_database_takes_the_old_ones_place_also_over_a_crash() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::claim(temp.path(), is_of_a_journal).unwrap();
    fs::create_dir(dir.database()).unwrap();
    let new = dir.new_database().unwrap();
    fs::create_dir(&new).unwrap();
    fs::write(new.join("new"), "").unwrap();
    // Before anything was put aside, an unfinished one counts for nothing.
    dir.finish_adoption().unwrap();
    assert_eq!(names(&dir.database()), [""; 0]);
    // The crash: the old one is aside, the new one not yet in its place.
    fs::rename(dir.database(), temp.path().join("rocksdb.damaged-1")).unwrap();
    dir.finish_adoption().unwrap();
    assert_eq!(names(&dir.database()), ["new"]);

    fs::create_dir(dir.new_database().unwrap()).unwrap();
    dir.adopt_new_database("1").unwrap();
    assert_eq!(names(&temp.path().join("rocksdb.damaged-1-1")), ["new"]);
    assert_eq!(names(&dir.database()), [""; 0]);
}
