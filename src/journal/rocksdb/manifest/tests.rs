use super::*;

fn fragment(kind: u8, data: &[u8]) -> Vec<u8> {
    let checked = [&[kind][..], data].concat();
    let len = u16::try_from(data.len()).unwrap().to_le_bytes();
    [&masked(crc32c(&checked)).to_le_bytes()[..], &len, &checked].concat()
}

#[test]
fn a_change_of_any_byte_is_found_at_its_fragment_and_a_cut_end_is_no_damage() {
    let fragments = [fragment(1, b"first"), [fragment(1, b""), fragment(2, b"second")].concat(), fragment(4, &[0; 40])];
    let good = fragments.concat();
    assert_eq!(first_bad(&good), None);
    let starts = [0, 12, 19, 32];
    assert_eq!(good.len(), 32 + HEADER_LEN + 40);
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let start = starts.iter().rev().find(|&&start| start <= at);
            // With a longer length, the last looks as if it were cut.
            let cut = at == starts[3] + 4 || at == starts[3] + 5;
            assert!(first_bad(&bad) == start.copied() || cut, "bit {bit} of byte {at}");
        }
        assert_eq!(first_bad(&good[..at]), None, "cut at {at}");
    }
    assert_eq!(first_bad(&[&good[..], &[0; 100]].concat()), None);
    assert_eq!(first_bad(&[&good[..], &[5; 100]].concat()), Some(good.len()));
    assert_eq!(first_bad(&[&good[..], &[0; 100], &good].concat()), Some(good.len()));
}

#[test]
fn a_record_over_several_pages_is_good() {
    let first = fragment(2, &vec![7; PAGE_LEN - HEADER_LEN - 3]);
    let second = fragment(4, b"rest");
    let good = [&first[..], &[0; 3], &second].concat();
    assert_eq!(first_bad(&good), None);
    let mut bad = good;
    bad[PAGE_LEN] ^= 1;
    assert_eq!(first_bad(&bad), Some(PAGE_LEN));
}
