use super::*;

#[test]
fn steps_over_keys_carry_and_end_at_the_last_key() {
    let mut key = [0, 0xff, 0xff];
    assert!(add_bit(&mut key, 0));
    assert_eq!(key, [1, 0, 0]);
    assert!(add_bit(&mut key, 15));
    assert_eq!(key, [1, 0x80, 0]);
    assert!(add_bit(&mut key, 15));
    assert_eq!(key, [2, 0, 0]);
    let mut last = [0xff, 0xff];
    assert!(!add_bit(&mut last, 3), "past the last key");
    assert!(!add_bit(&mut [0; 2], 16), "wider than the key");
}
