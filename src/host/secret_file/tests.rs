use std::os::unix::fs::symlink;

use super::*;

fn access(owner: u32, own_group: bool, mode: u32, credential: bool) -> bool {
    let access = Access { owner, group: 7, own_group, mode, credential };
    check_access(Path::new("k"), &access, 1000).is_ok()
}

#[test]
fn a_file_is_ones_own_or_roots_and_nobody_outside_ones_groups_has_any_permission() {
    for mode in 0..0o1000 {
        for owner in [0, 1000] {
            assert_eq!(access(owner, false, mode, false), mode & 0o077 == 0, "{owner} {mode:o}");
            assert_eq!(access(owner, true, mode, false), mode & 0o007 == 0, "{owner} {mode:o}");
        }
        assert!(!access(1001, true, mode, false) && !access(1001, true, mode, true), "{mode:o}");
    }
}

#[test]
fn a_credential_of_roots_may_show_an_access_list_and_no_more() {
    let access = |owner, mode| access(owner, false, mode, true);
    assert!(access(0, 0o440) && access(0, 0o400) && access(1000, 0o400));
    assert!(!access(0, 0o460) && !access(0, 0o444) && !access(0, 0o450));
    assert!(!access(1000, 0o440));
}

#[test]
fn the_permissions_of_what_the_program_made_itself_are_put_right() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("own");
    write(&path, b"secret", Existing::Keep).unwrap();
    for mode in [0o660, 0o640, 0o644, 0o666] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        assert_eq!(**read_own(&path, 9).unwrap(), *b"secret", "{mode:o}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "{mode:o}");
    }
}

#[test]
fn without_links_a_file_is_still_whole_and_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two, path] = ["one", "two", "path"].map(|name| dir.path().join(name));
    fs::write(&one, "1").unwrap();
    fs::write(&two, "2").unwrap();
    claim_and_rename(&one, &path).unwrap();
    assert_eq!(claim_and_rename(&two, &path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"1");
    let gone = dir.path().join("gone");
    assert!(claim_and_rename(&gone, &dir.path().join("new")).is_err());
    assert!(!dir.path().join("new").exists(), "what was claimed in vain is given back");
}

#[test]
fn a_credential_lies_in_the_directory_itself_wherever_a_link_leads_from() {
    let dir = tempfile::tempdir().unwrap();
    let [inside, outside] = ["credentials", "elsewhere"].map(|name| dir.path().join(name));
    for place in [&inside, &outside] {
        fs::create_dir(place).unwrap();
        fs::write(place.join("keys"), "").unwrap();
    }
    symlink(outside.join("keys"), inside.join("link")).unwrap();
    let credentials = || Some(inside.clone().into_os_string());
    assert!(is_credential(&inside.join("keys"), credentials()));
    assert!(is_credential(&inside.join("../credentials/keys"), credentials()));
    assert!(!is_credential(&inside.join("link"), credentials()));
    assert!(!is_credential(&outside.join("keys"), credentials()));
    assert!(!is_credential(&inside.join("keys"), None));
    assert!(!is_credential(&inside.join("none"), credentials()));
}

#[test]
fn what_is_no_file_and_what_is_too_long_are_refused_without_reading() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(read(dir.path(), 9), Err(SecretFileError::NotAFile { .. })));
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(matches!(read(&pipe, 9), Err(SecretFileError::NotAFile { .. })));
    let long = dir.path().join("long");
    write(&long, b"ten bytes!", Existing::Keep).unwrap();
    assert!(matches!(read(&long, 9), Err(SecretFileError::TooLong { .. })));
    assert_eq!(**read(&long, 10).unwrap(), *b"ten bytes!");
    assert!(matches!(read(&dir.path().join("none"), 9), Err(SecretFileError::Read { .. })));
}

#[test]
fn what_is_written_is_for_this_user_alone_and_nothing_is_left_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    write(&path, b"one", Existing::Keep).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert!(write(&path, b"two", Existing::Keep).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"one");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(write(&link, b"two", Existing::Keep).is_err());
    write(&link, b"three", Existing::Replace).unwrap();
    assert_eq!((fs::read(&path).unwrap(), fs::metadata(&path).unwrap().mode() & 0o777), (b"three".to_vec(), 0o600));
    assert!(write(&dir.path().join("none"), b"", Existing::Replace).is_err());
    assert!(write(&dir.path().join("no/secret"), b"", Existing::Keep).is_err());
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}
