//! Whatever comes, and whenever the server dies.

use super::*;

/// What a step of the property below brings.
#[derive(Clone, Debug)]
enum Step {
    /// One batch of (client, seq, span, skip); seq 0 stands for a PING, span above the seq for a HELLO.
    Batch(Vec<(u64, u64, u16, bool)>),
    Crash {
        window: u16,
    },
    Checkpoint,
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    use proptest::prelude::*;
    let datagram = (1u64..4, 0u64..40, 0u16..12, any::<bool>());
    let step = prop_oneof![
        8 => prop::collection::vec(datagram, 1..9).prop_map(Step::Batch),
        1 => (4u16..12).prop_map(|window| Step::Crash { window }),
        1 => Just(Step::Checkpoint),
    ];
    prop::collection::vec(step, 1..60)
}

proptest::proptest! {
    /// Whatever comes and whenever the server dies: what was acked is counted after a restart, and journaled once; no ack
    /// counts more than a restart at that moment would find.
    #[test]
    fn nothing_acked_is_forgotten_and_nothing_is_journaled_twice(steps in steps()) {
        let narrow = Config { window: 8, ..config() };
        let mut rig = Rig::on(MemoryDisk::default(), narrow.clone(), 1000);
        let mut floors = std::collections::BTreeMap::<u64, u64>::new();
        let mut counted = std::collections::BTreeSet::<(u64, u64)>::new();
        for step in steps {
            let datagrams = match step {
                Step::Crash { window } => {
                    rig = Rig::on(rig.disk, Config { window, ..narrow.clone() }, 1000);
                    continue;
                }
                Step::Checkpoint => {
                    rig.clock.advance_s(2);
                    rig.step(&[]);
                    continue;
                }
                Step::Batch(datagrams) => datagrams,
            };
            let ping = |client| encode(&Datagram::Ping(Ping { client: ClientId(client), epoch: Epoch::new(1).unwrap() }));
            let bytes = datagrams.iter().map(|&(client, seq, span, skip)| match seq {
                0 => ping(client),
                _ if u64::from(span) >= seq => hello(client, seq),
                _ => data(client, seq, span, skip),
            });
            let batch: Vec<_> = bytes.map(|bytes| (peer(1), bytes)).collect();
            // Two thirds of them are in flight while the others come; every second time these are lost in the crash that
            // follows.
            let (launched, rest) = batch.split_at(batch.len() * 2 / 3);
            let (first, second) = launched.split_at(launched.len() / 2);
            rig.hand.hold(2);
            for part in [first, second] {
                rig.absorb(part).unwrap();
                rig.committer.launch(&rig.clock).unwrap();
            }
            rig.absorb(rest).unwrap();
            rig.committer.land(&rig.clock).unwrap();
            if batch.len() % 2 == 1 {
                rig.committer.commit(&rig.clock).unwrap();
            }
            let sent = rig.sent();
            let restarted = Rig::on(rig.disk.clone(), narrow.clone(), 1000);
            for (_, bytes) in &sent {
                let Datagram::Ack(Ack { client, epoch, .. }) = codec::decode(bytes).unwrap() else { continue };
                let Reply::Ack { floor, bits, .. } = reply(bytes) else { unreachable!() };
                if epoch.value() != 1 {
                    continue;
                }
                let client = client.0;
                let before = floors.insert(client, floor).unwrap_or(0);
                proptest::prop_assert!(floor >= before, "the floor went back from {before} to {floor}");
                // A PING's ack has no room for a bitmap.
                if bytes.len() > codec::MIN_LEN {
                    for &(_, seq) in counted.iter().filter(|(c, s)| *c == client && *s > floor) {
                        proptest::prop_assert!(bits.contains(&seq), "{seq} was acked before");
                    }
                }
                counted.extend(bits.iter().map(|seq| (client, *seq)));
                let id = crate::model::SessionId { client: ClientId(client), epoch };
                let mut found = restarted.committer.dialect().session_of(id);
                if floor > 0 {
                    let session = found.as_mut().expect("an acked session is on disk");
                    proptest::prop_assert!(session.floor().0 >= floor, "acked {floor}, on disk {}", session.floor());
                    proptest::prop_assert!(bits.iter().all(|&seq| session.holds(Seq(seq))));
                }
            }
            // Opening the disk cut the writer off.
            rig = restarted;
        }
        let mut journaled = std::collections::BTreeSet::new();
        let mut twice = None;
        rig.disk.clone().open(&mut |_| {});
        for block in crate::journal::ReadJournal::read(&rig.disk, Offset(0), usize::MAX).unwrap() {
            for entry in block.entries().filter(|entry| entry.kind == EntryKind::Data) {
                if !journaled.insert((entry.meta.session, entry.meta.seq)) {
                    twice = Some(entry.meta);
                }
            }
        }
        proptest::prop_assert_eq!(twice, None);
    }
}
