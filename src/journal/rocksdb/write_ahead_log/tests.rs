use std::fs;

use super::*;

/// A fragment as RocksDB would write it.
pub(crate) fn fragment(kind: u8, log: u32, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len()).unwrap().to_le_bytes();
    let checked = [&[kind][..], &log.to_le_bytes(), data].concat();
    [&masked(crc32c(&checked)).to_le_bytes()[..], &len, &checked].concat()
}

fn batch(sequence: u64) -> Vec<u8> {
    [&sequence.to_le_bytes()[..], &1u32.to_le_bytes(), b"change"].concat()
}

/// A batch of one change, made when so many changes were known to be synced.
fn batch_after(synced: u64, sequence: u64) -> Vec<u8> {
    [&sequence.to_le_bytes()[..], &1u32.to_le_bytes(), &SYNCED_TAG, &synced.to_le_bytes(), b"change"].concat()
}

/// In a page, when RocksDB has delivered so many changes, all of them from table files.
fn find_in_page(page: &[u8], log: u64, delivered: u64) -> Vec<(usize, Found)> {
    Search { first: 0, next: delivered + 1 }.page(page, log)
}

#[test]
fn a_record_without_changes_is_not_missed() {
    let empty = [&11u64.to_le_bytes()[..], &0u32.to_le_bytes()].concat();
    assert_eq!(find_in_page(&fragment(WHOLE, 9, &empty), 9, 10), []);
}

#[test]
fn the_checksum_is_crc32c() {
    // RFC 3720, appendix B.4.
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn a_good_record_behind_the_last_delivered_one_is_found_wherever_it_lies() {
    let page = [&[7; 5][..], &fragment(WHOLE, 9, &batch(11)), &[0; 40]].concat();
    assert_eq!(find_in_page(&page, 9, 10), [(5, Found::Proof)]);
    assert_eq!(find_in_page(&page, 9, 11), [], "that one was delivered");
    assert_eq!(find_in_page(&page, 8, 10), [], "left over from the log whose file this was");
    let first = fragment(FIRST, 9, &batch(11));
    assert_eq!(find_in_page(&first, 9, 10), [(0, Found::Torn)], "this one a crash has torn");
    assert_eq!(find_in_page(&first, 9, 9), [(0, Found::Proof)], "and this one came after another");
    for at in 0..first.len() {
        let mut bad = first.clone();
        bad[at] ^= 4;
        // With the sequence number changed it may look like the next one.
        let found = find_in_page(&bad, 9, 9);
        assert!(found.iter().all(|(_, found)| *found != Found::Proof), "byte {at}");
    }
    assert_eq!(find_in_page(&first[..first.len() - 1], 9, 9), []);
}

#[test]
fn a_write_that_is_not_whole_is_told_from_nothing() {
    let whole = fragment(WHOLE, 9, &batch(11));
    let end = whole.len() - 1;
    let torn = [&[7; 5][..], &whole[..end], &[FILL; 40]].concat();
    assert_eq!(find_in_page(&torn, 9, 10), [(5, Found::Torn)]);
    assert_eq!(find_in_page(&torn, 9, 9), [], "not the one that comes next");
    let both = [&torn[..], &fragment(WHOLE, 9, &batch(12))].concat();
    assert_eq!(find_in_page(&both, 9, 10), [(5, Found::Torn), (torn.len(), Found::Proof)]);
}

#[test]
fn a_whole_write_proves_damage_before_it_exactly_if_it_says_that_this_was_synced() {
    // RocksDB has delivered ten changes; the eleventh is not whole.
    for (synced, found) in [(9, Found::UnderWay), (10, Found::UnderWay), (11, Found::Proof), (12, Found::Proof)] {
        for kind in [WHOLE, FIRST] {
            assert_eq!(find_in_page(&fragment(kind, 9, &batch_after(synced, 13)), 9, 10), [(0, found)], "{synced}");
        }
    }
    assert_eq!(find_in_page(&fragment(WHOLE, 9, &batch(13)), 9, 10), [(0, Found::Proof)], "of an earlier version");
    let whole = fragment(WHOLE, 9, &batch_after(10, 11));
    assert_eq!(find_in_page(&whole, 9, 10), [(0, Found::Proof)], "RocksDB would have delivered it");
}

#[test]
fn a_record_that_the_end_of_its_page_parts_before_it_says_what_was_synced_proves_nothing() {
    let all = batch_after(12, 13);
    for len in BATCH_HEADER_LEN..BATCH_HEADER_LEN + SYNCED_LEN {
        assert_eq!(find_in_page(&fragment(FIRST, 9, &all[..len]), 9, 10), [(0, Found::UnderWay)], "{len} bytes");
        // One that ends there has nothing to say in another page.
        assert_eq!(find_in_page(&fragment(WHOLE, 9, &all[..len]), 9, 10), [(0, Found::Proof)], "{len} bytes");
    }
    let len = BATCH_HEADER_LEN + SYNCED_LEN;
    assert_eq!(find_in_page(&fragment(FIRST, 9, &all[..len]), 9, 10), [(0, Found::Proof)]);
}

#[test]
fn writes_that_were_under_way_together_are_counted_and_given_up_whichever_of_them_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let write = |log: &[u8]| fs::write(dir.path().join("000012.log"), log).unwrap();
    let file = || "rocksdb/000012.log".to_owned();
    let (first, second) = (fragment(WHOLE, 12, &batch_after(10, 11)), fragment(WHOLE, 12, &batch_after(10, 12)));
    let mut torn = first.clone();
    torn[20] ^= 1;
    write(&[&torn[..], &second].concat());
    assert_eq!(tail(dir.path(), 12, 10, 10).unwrap(), Tail::Torn(Torn { file: file(), at: 0, whole: 1 }));
    let nothing = vec![FILL; first.len()];
    write(&[&nothing[..], &second].concat());
    let at = first.len() as u64;
    let behind = Torn { file: file(), at, whole: 1 };
    assert_eq!(tail(dir.path(), 12, 10, 10).unwrap(), Tail::Torn(behind), "of the first nothing is left");
    // A third one knows that the first two were synced.
    let third = fragment(WHOLE, 12, &batch_after(12, 13));
    write(&[&torn[..], &second, &third].concat());
    let at = (first.len() + second.len()) as u64;
    assert_eq!(tail(dir.path(), 12, 10, 10).unwrap(), Tail::GoodAfterBad { file: file(), at });
}

#[test]
fn logs_are_read_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let log = [&vec![0; PAGE_LEN * 2 + 3][..], &fragment(WHOLE, 12, &batch(11))].concat();
    fs::write(dir.path().join("000012.log"), &log).unwrap();
    fs::write(dir.path().join("000003.log"), "").unwrap();
    fs::write(dir.path().join("000012.sst"), &log).unwrap();
    let at = u64::try_from(PAGE_LEN * 2 + 3).unwrap();
    let behind = Tail::GoodAfterBad { file: "rocksdb/000012.log".into(), at };
    assert_eq!(tail(dir.path(), 12, 10, 10).unwrap(), behind);
    assert_eq!(tail(dir.path(), 12, 10, 11).unwrap(), Tail::Clean);
    assert_eq!(tail(dir.path(), 12, 11, 11).unwrap(), Tail::Clean);
    assert_eq!(tail(dir.path(), 13, 10, 10).unwrap(), Tail::Clean, "RocksDB has done with that log");
}

#[test]
fn the_log_must_go_on_where_the_table_files_end() {
    let dir = tempfile::tempdir().unwrap();
    let three = |first: u64| [&first.to_le_bytes()[..], &3u32.to_le_bytes(), b"changes"].concat();
    let log = [fragment(WHOLE, 12, &three(11)), fragment(FIRST, 12, &three(14))].concat();
    fs::write(dir.path().join("000012.log"), log).unwrap();
    for in_tables in 10..16 {
        assert_eq!(tail(dir.path(), 12, in_tables, 16).unwrap(), Tail::Clean, "{in_tables}");
    }
    assert_eq!(tail(dir.path(), 12, 9, 16).unwrap(), Tail::Gap { in_tables: 9 });
    assert_eq!(tail(dir.path(), 12, 16, 16).unwrap(), Tail::Clean, "all is in table files");
}
