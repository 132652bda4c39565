use super::*;

#[test]
fn a_value_comes_back_and_is_not_stored_as_it_is() {
    let mut stored = vec![9; 3];
    for len in (0..40).chain(PIECE_LEN - 1..PIECE_LEN + 10) {
        let value: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0]).collect();
        mask_into(&mut stored, &value, 0x0123_4567_89ab_cdef);
        assert_eq!(stored.len(), value.len() + MASK_LEN);
        assert_eq!(unmask(&stored), value);
        assert!(value.iter().zip(&stored[MASK_LEN..]).all(|(plain, masked)| plain != masked));
    }
}

#[test]
fn what_is_too_short_for_a_mask_is_no_value() {
    assert_eq!(unmask(&[1; 7]), [0; 0]);
    assert_eq!(unmask(&[1; 8]), [0; 0]);
}
