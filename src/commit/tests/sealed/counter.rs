//! The numbers that the server seals with.

use super::*;

/// The counter of a sealed reply.
fn counter_of(bytes: &[u8]) -> u64 {
    codec::peek(bytes).unwrap().counter
}

#[test]
fn nothing_is_sealed_before_a_limit_is_on_disk_and_nothing_above_it() {
    let mut rig = Rig::on(MemoryDisk::default(), Config { sealed: true, ..config() }, 10);
    rig.admission = Admission::new(AdmissionConfig {
        keys: KeyRing::of(Keys::parse(KEY_FILE.as_bytes()).unwrap()),
        ..rig.admission_config.clone()
    });
    assert_eq!(rig.disk.counter_limit(), None);
    // Answered in the commit's first half, before it is written.
    assert_eq!(rig.tell(&ping(1, 5, 1)), None);
    let withheld = crate::metrics::Outcome { outcome: "unsealable" };
    assert_eq!(rig.metrics.replies_withheld.get_or_create(&withheld).get(), 1);
    let disk = rig.disk.clone();
    let wire = rig.wire.clone();
    rig.disk.on_write(move |_| {
        // Hours pass while the disk is slow.
        let limit = disk.counter_limit().unwrap();
        assert!(wire.0.lock().unwrap().iter().all(|(_, bytes)| counter_of(bytes) < limit));
        WriteFate::Durable
    });
    let mut last = 0;
    for round in 0..200 {
        rig.clock.advance_s(600);
        let limit = rig.disk.counter_limit().unwrap();
        for (_, bytes) in
            rig.step(&[(peer(1), ping(1, 5, 2 + 2 * round)), (peer(1), data(1, 5, 1 + round, 0, 3 + 2 * round))])
        {
            let counter = counter_of(&bytes);
            assert!(counter > last && counter < rig.disk.counter_limit().unwrap());
            assert!(counter < limit || rig.disk.counter_limit() > Some(limit));
            last = counter;
        }
    }
}

#[test]
fn a_number_never_comes_twice_whatever_becomes_of_clock_and_process() {
    let mut rig = Rig::sealed();
    let mut seen = BTreeSet::new();
    let mut seq = 0;
    // Seconds by which the clock steps at each restart.
    for step in [0, 10_000, -9_000, 5, -1_000_000, 0, 86_400 * 30, -86_400 * 29, 1] {
        for _ in 0..20 {
            seq += 1;
            let datagrams =
                [(peer(1), data(1, 5, seq, 0, 2 * seq)), (peer(1), ping(2, 5, seq)), (peer(1), hello(2, seq))];
            for (_, bytes) in rig.step(&datagrams) {
                let counter = counter_of(&bytes);
                assert!(seen.last().is_none_or(|&last| last < counter), "{counter} after {:?}", seen.last());
                seen.insert(counter);
            }
        }
        let now = rig.clock.1.get() + step;
        rig = Rig::sealed_on(rig.disk, 10, false);
        rig.clock.1.set(now);
        rig.committer.commit(&rig.clock).unwrap();
    }
    assert!(seen.len() > 300);
}

#[test]
fn a_limit_counts_only_when_its_commit_has_landed() {
    let mut rig = Rig::sealed();
    assert_eq!(rig.tell(&data(1, 5, 1, 0, 1)), Some(acked(1)));
    rig.hand.hold(1);
    // The limit on disk is passed, and the next one is on its way.
    rig.clock.advance_s(2 * 3_600);
    rig.absorb(&[(peer(1), data(1, 5, 2, 0, 2))]).unwrap();
    rig.committer.launch(&rig.clock).unwrap();
    assert!(rig.hand.has_work());
    let refused = data(2, 5, 5_000, 4_999, 1);
    rig.absorb(&[(peer(1), refused.clone())]).unwrap();
    rig.hand.run();
    rig.committer.land(&rig.clock).unwrap();
    let sent = rig.sent();
    assert_eq!(
        sent.iter().map(|(_, bytes)| opened(bytes)).collect::<Vec<_>>(),
        [acked(2)],
        "no REJECT: it came before"
    );
    assert_eq!(rig.tell(&refused), Some(Reply::Reject(RejectCode::BeyondWindow)));
}

#[test]
fn a_failed_commit_leaves_nothing_sealed() {
    let mut rig = Rig::sealed();
    rig.disk.on_write(|_| WriteFate::FailedButWritten);
    rig.absorb(&[(peer(1), data(1, 5, 1, 0, 1)), (peer(1), hello(2, 1))]).unwrap();
    rig.committer.commit(&rig.clock).unwrap_err();
    assert_eq!(rig.sent(), []);
    rig.disk.on_write(|_| WriteFate::Durable);
    // It was on the disk all the same: the session goes on, and the epoch is used.
    let mut rig = Rig::sealed_on(rig.disk, 10, false);
    assert_eq!(rig.tell(&data(1, 5, 1, 0, 2)), Some(acked_again(1)));
    assert_eq!(rig.tell(&data(1, 4, 1, 0, 1)), STALE);
}
