use super::*;

#[test]
fn losses_that_border_on_each_other_or_overlap_are_one() {
    let loss = |from, to| Loss { entries: Some((Offset(from), Offset(to))), accepted_unix_us: 0, what: String::new() };
    let given_up = |losses: &[Loss]| holes(losses).iter().map(|(from, to)| (from.0, to.0)).collect::<Vec<_>>();
    assert_eq!(given_up(&[loss(90, 200), loss(60, 70), loss(200, 300)]), [(60, 70), (90, 300)]);
    assert_eq!(given_up(&[loss(60, 80), loss(60, 70), loss(75, 90)]), [(60, 90)]);
    let elsewhere = Loss { entries: None, ..loss(0, 0) };
    assert_eq!(given_up(&[elsewhere]), []);
}
