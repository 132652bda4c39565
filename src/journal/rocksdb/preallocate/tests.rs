use super::*;

#[test]
fn a_log_is_filled_behind_what_it_holds_and_never_cut() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("000004.log");
    fs::write(&log, "records").unwrap();
    fs::write(dir.path().join("000003.log"), "").unwrap();
    fs::write(dir.path().join("000004.sst"), "").unwrap();
    assert_eq!(logs(dir.path()).unwrap().iter().map(|log| log.0).collect::<Vec<_>>(), [3, 4]);
    let bytes = 2 * STEP_BYTES + 5;
    preallocate(&log, bytes).unwrap();
    let filled = fs::read(&log).unwrap();
    assert_eq!(filled.len() as u64, bytes);
    assert!(filled.starts_with(b"records") && filled[7..].iter().all(|&byte| byte == FILL));
    preallocate(&log, 9).unwrap();
    assert_eq!(fs::read(&log).unwrap(), filled);
}

#[test]
fn a_log_is_left_when_it_grows_slowly_and_a_longer_one_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let grow = |number: u64, to: u64| {
        let log = dir.path().join(format!("{number:06}.log"));
        OpenOptions::new().create(true).append(true).open(log).unwrap().set_len(to).unwrap();
    };
    let mut watch = LogWatch::default();
    let mut look = || watch.is_switch_due(dir.path()).unwrap();
    assert!(!look(), "there is none");
    grow(4, 100);
    grow(5, 10);
    assert!(!look(), "who knows whether it grows");
    assert!(!look(), "it does not");
    grow(5, 20);
    assert!(look());
    grow(5, 100);
    assert!(!look(), "no other one is longer");
    grow(4, SLOW_BYTES * 3);
    grow(5, 100 + SLOW_BYTES + 1);
    assert!(!look(), "it is full soon");
    grow(6, 10);
    assert!(!look(), "just begun");
    grow(6, 11);
    assert!(look());
}
