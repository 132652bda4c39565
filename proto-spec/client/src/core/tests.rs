use duragram_proto::client::{ClientConfig, FailReason};
use duragram_proto::codec::{self, Ack, Datagram, Durability};
use duragram_proto::{ClientId, Seq};

use super::*;

const EPOCH: Epoch = Epoch::new(1).unwrap();

fn core(window: usize, linger: Duration) -> Core {
    let config = ClientConfig::new(ClientId(1), Some(EPOCH));
    let (asks, bodies) = ask_memory(1_200);
    let machine = Machine::new(config, vec![Slot::EMPTY; window], vec![0; 100_000], 1);
    Core::new(machine.with_asks(ASK_CONFIG, asks, bodies), Batching::Linger(linger))
}

fn push(core: &mut Core, now_us: u64, record: &[u8]) -> oneshot::Receiver<Outcome> {
    match core.push(now_us, 0, record) {
        Ok(Push::Taken(outcome)) => outcome,
        other => panic!("{other:?}"),
    }
}

/// What goes out now, as seq and number of records.
fn sent(core: &mut Core, now_us: u64) -> Vec<(u64, usize)> {
    core.advance(now_us);
    let mut out = [0; 1200];
    let mut all = Vec::new();
    while let Some(len) = core.transmit(now_us, &mut out) {
        let Ok(Datagram::Data(data)) = codec::decode(&out[..len]) else { panic!("not DATA") };
        all.push((data.seq.0, data.records().count()));
    }
    all
}

fn ack(core: &mut Core, now_us: u64, floor: u64) {
    let ack = Ack {
        client: ClientId(1),
        epoch: EPOCH,
        floor: Seq(floor),
        credit: 1000,
        durability: Durability::Synced,
        duplicate: false,
        complete: false,
        ready: false,
        delay_us: 0,
        bitmap: &[],
    };
    let mut bytes = [0; codec::ACK_LEN_MAX];
    let len = ack.encode(&mut bytes).unwrap();
    assert!(core.receive(now_us, &mut bytes[..len]));
    core.advance(now_us);
}

#[test]
fn a_batch_lingers_only_while_others_are_under_way() {
    let mut core = core(100, Duration::from_micros(500));
    let _first = push(&mut core, 0, b"first");
    assert_eq!(sent(&mut core, 0), [(1, 1)], "a lone record goes at once");
    let _second = push(&mut core, 100, b"second");
    let _third = push(&mut core, 300, b"third");
    assert_eq!(sent(&mut core, 599), []);
    assert_eq!(core.wake_us(), Some(600), "500 after its first record");
    assert_eq!(sent(&mut core, 600), [(2, 2)]);
    let _fourth = push(&mut core, 700, b"fourth");
    ack(&mut core, 800, 2);
    assert_eq!(sent(&mut core, 800), [(3, 1)], "nothing else is under way any more");
}

#[test]
fn a_batch_without_room_does_not_wake_the_driver_until_there_is_some() {
    let mut core = core(1, Duration::from_micros(500));
    let _first = push(&mut core, 0, b"first");
    assert_eq!(sent(&mut core, 0), [(1, 1)]);
    let _second = push(&mut core, 100, b"second");
    let retransmission = core.machine.poll_timeout();
    assert_eq!(sent(&mut core, 600), [], "its linger is over, and the only slot is taken");
    assert_eq!(core.wake_us(), retransmission, "a deadline in the past would spin");
    ack(&mut core, 1000, 1);
    assert_eq!(sent(&mut core, 1000), [(2, 1)]);
}

#[test]
fn a_full_batch_goes_though_its_linger_is_not_over() {
    let mut core = core(100, Duration::from_secs(3600));
    let _first = push(&mut core, 0, b"first");
    assert_eq!(sent(&mut core, 0), [(1, 1)]);
    // 1,168 bytes of payload hold three records of 350 bytes with their lengths.
    let _rest: Vec<_> = (0..4).map(|_| push(&mut core, 1, &[0; 350])).collect();
    assert_eq!(sent(&mut core, 2), [(2, 3)]);
}

#[test]
fn tickets_are_settled_in_any_order_and_each_once() {
    let mut core = core(100, Duration::ZERO);
    let outcomes: Vec<_> = (0..5_u8)
        .map(|n| {
            let outcome = push(&mut core, 0, &[n]);
            assert_eq!(sent(&mut core, 1).len(), 1);
            outcome
        })
        .collect();
    let settle = |core: &mut Core, id: u64| {
        core.tell(Event::Acked {
            message: MessageId(id),
            seq: Seq(id + 1),
            epoch: EPOCH,
            durability: Durability::Synced,
        });
    };
    for id in [3, 1, 3, 0, 7] {
        settle(&mut core, id);
    }
    assert_eq!((core.lowest, core.acked, core.unacked), (2, 3, 2));
    assert!(core.is_settled(2) && !core.is_settled(3));
    settle(&mut core, 4);
    settle(&mut core, 2);
    assert_eq!((core.lowest, core.acked, core.unacked), (5, 5, 0));
    for (seq, mut outcome) in (1..).zip(outcomes) {
        assert_eq!(outcome.try_recv().unwrap().unwrap().seq, Seq(seq));
    }
}

#[test]
fn the_oldest_is_given_up_and_makes_room_whether_it_was_sent_or_waits_in_the_batch() {
    let mut core = core(2, Duration::from_secs(3600));
    let mut first = push(&mut core, 0, b"first");
    assert_eq!(sent(&mut core, 0), [(1, 1)]);
    let mut batched: Vec<_> = (0..3_u8).map(|n| push(&mut core, 1, &[n])).collect();
    assert_eq!((sent(&mut core, 2), core.unacked), (vec![], 4), "the batch lingers");
    assert_eq!(core.abandon_oldest(), 1);
    assert_eq!(first.try_recv().unwrap(), Err(SendError::Abandoned));
    let mut next = push(&mut core, 3, b"");
    assert_eq!(core.abandon_oldest(), 4, "nothing else is unacked than the records of the open batch");
    for outcome in batched.iter_mut().chain([&mut next]) {
        assert_eq!(outcome.try_recv().unwrap(), Err(SendError::Abandoned));
    }
    assert_eq!(core.abandon_oldest(), 0);
    assert!(core.is_idle() && core.is_settled(1));
    let _last = push(&mut core, 4, b"last");
    assert_eq!(sent(&mut core, 4), [(2, 1)], "what was never sent has taken no seq with it");
    let stats = core.stats();
    assert_eq!((stats.abandoned, stats.failed, stats.unacked), (5, 0, 1));
}

#[test]
fn a_flush_does_not_wait_for_a_batch_that_was_given_up_or_belongs_to_a_used_epoch() {
    for used in [false, true] {
        let mut core = core(2, Duration::from_secs(3600));
        let _first = push(&mut core, 0, b"first");
        assert_eq!(sent(&mut core, 0), [(1, 1)]);
        let _batched = push(&mut core, 1, b"second");
        let flushed = core.hurry();
        assert!(!core.is_settled(flushed));
        if used {
            core.tell(Event::Failed { message: MessageId(0), reason: FailReason::EpochUsed });
        } else {
            assert_eq!((core.abandon_oldest(), core.abandon_oldest()), (1, 1));
        }
        assert!(core.is_idle() && core.is_settled(flushed), "used: {used}");
    }
}
