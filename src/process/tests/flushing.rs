//! Tests of when a lane flushes its handler and moves its watermark.

use super::*;

#[test]
fn a_sink_that_cannot_flush_holds_the_watermark_and_gets_nothing_new() {
    let mut rig = Rig::new(1);
    rig.log().flush_error = Some("disk full");
    rig.publish(&[1; 3]);
    assert!(matches!(rig.step(0), LaneStep::Worked));
    let mut now = match rig.step(0) {
        LaneStep::Idle { until_us } => until_us.unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(now, 50_000, "the flush interval");
    rig.publish(&[1; 3]);
    let flushes = rig.log().flushes;
    for _ in 0..20 {
        assert!(matches!(rig.step(now), LaneStep::Worked), "one try");
        now = retry_at(rig.step(now));
    }
    assert_eq!(rig.log().flushes - flushes, 20);
    assert_eq!((rig.calls().len(), rig.watermark()), (1, 0));
    rig.log().flush_error = None;
    rig.settle(now);
    assert_eq!((rig.watermark(), rig.calls().len()), (3, 2), "the second batch waits for its own flush");
    rig.settle(now + 50_000);
    assert_eq!((rig.watermark(), rig.done()), (6, keys(0..6)));
}

#[test]
fn a_flush_comes_by_records_by_bytes_and_by_time() {
    let base = LaneConfig { batch_records_max: 2, ..config() };
    let by_records = LaneConfig { flush_records_max: 4, ..base };
    let by_bytes = LaneConfig { flush_bytes_max: 4 * 48, ..base };
    for config in [by_records, by_bytes] {
        let mut rig = Rig::on(MemoryDisk::default(), 1, config);
        rig.publish(&[1; 7]);
        rig.settle(0);
        assert_eq!((rig.watermark(), rig.done().len()), (4, 7));
        rig.settle(49_999);
        assert_eq!(rig.watermark(), 4);
        rig.settle(50_000);
        assert_eq!(rig.watermark(), 7);
        assert!(matches!(rig.step(50_000), LaneStep::Idle { until_us: None }), "idle costs nothing");
    }
}

#[test]
fn the_watermark_of_a_lane_without_entries_moves_too_and_its_handler_is_left_alone() {
    let mut rig = Rig::new(2);
    let client = (0..).find(|&client| Lane::of(session(client), 2) == Lane(1)).unwrap();
    let flushes = rig.log().flushes;
    rig.publish(&[client; 5]);
    rig.settle(0);
    assert_eq!((rig.progress.watermark(Lane(0)), rig.progress.watermark(Lane(1))), (Offset(5), Offset(0)));
    assert_eq!(rig.progress.lowest_watermark(), Offset(0));
    assert_eq!(rig.log().flushes, flushes);
    rig.settle(50_000);
    assert_eq!(rig.progress.lowest_watermark(), Offset(5));
}

#[test]
fn the_lag_is_shown_while_a_lane_stands_still_and_when_it_catches_up() {
    let mut rig = Rig::new(1);
    let lag = rig.metrics.lane_lag.get_or_create(&crate::metrics::LaneLabel { sink: String::new(), lane: 0 }).clone();
    rig.publish(&[1; 5]);
    assert_eq!(lag.get(), 5);
    rig.settle(0);
    rig.settle(50_000);
    assert_eq!(lag.get(), 0);
}
