//! Whatever comes, in whatever order, and whenever the server dies.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::AskId;

#[derive(Clone, Debug)]
enum Step {
    Ask(u64, u64),
    Take {
        client: u64,
        seq: u64,
        span: u16,
        wait_ms: u32,
    },
    /// Processes this entry, for the first time or again.
    Process(u64),
    Close,
    Land,
    Checkpoint {
        pieces: usize,
    },
    Advance(u64),
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (client, seq) = (1u64..3, 1u64..8);
    let step = prop_oneof![
        6 => (client.clone(), seq.clone()).prop_map(|(client, seq)| Step::Ask(client, seq)),
        6 => (client, seq, 0u16..4, prop_oneof![Just(0), 1u32..3_000]).prop_map(|(client, seq, span, wait_ms)| {
            Step::Take { client, seq, span: span.min(u16::try_from(seq).unwrap() - 1), wait_ms }
        }),
        6 => (0u64..20).prop_map(Step::Process),
        4 => Just(Step::Close),
        4 => Just(Step::Land),
        1 => (1usize..6).prop_map(|pieces| Step::Checkpoint { pieces }),
        1 => (1u64..3_000).prop_map(Step::Advance),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    /// Told is told for ever: each answer that a client hears is the only one it ever hears of that seq, an acked ask is never
    /// gone before its client has said that it wants it no more, no ANSWER comes that no TAKE has asked for, and none to another
    /// port than that of a TAKE of the seq.
    #[test]
    fn each_ask_has_one_answer_and_is_gone_only_when_its_client_said_so(steps in steps()) {
        let mut rig = Rig::new();
        // As the entries have them: the asks by offset, of which each may be processed again and again, each time with another
        // result.
        let mut entries: Vec<AskId> = Vec::new();
        let mut results = 0u64;
        let mut told = BTreeMap::<AskId, Said>::new();
        let mut wanted_from = BTreeMap::<u64, u64>::new();
        let mut vouchers = BTreeMap::<u16, (AskId, usize)>::new();
        let mut port = 0;
        for step in steps.into_iter().chain([Step::Close, Step::Land, Step::Land, Step::Land]) {
            match step {
                Step::Ask(client, seq) => {
                    // The window takes seqs in any order.
                    port += 1;
                    let before = rig.next_offset();
                    rig.send(port, &ask_at(id(client, seq), u16::try_from(seq).unwrap() - 1));
                    if rig.next_offset() > before {
                        entries.truncate(usize::try_from(before.0).unwrap());
                        entries.push(id(client, seq));
                    }
                }
                Step::Take { client, seq, span, wait_ms } => {
                    port += 1;
                    vouchers.insert(port, (id(client, seq), 1));
                    let from = wanted_from.entry(client).or_default();
                    *from = (*from).max(seq - u64::from(span));
                    rig.send(port, &encode(&take_with(id(client, seq), span, wait_ms, 100)));
                }
                Step::Process(offset) => {
                    // No lane sees what is not durable.
                    let known = usize::try_from(offset).ok().and_then(|at| entries.get(at)).copied();
                    if let Some(id) = known.filter(|_| Offset(offset) < rig.durable_end()) {
                        results += 1;
                        rig.answer(id, Offset(offset), results.to_string().as_bytes());
                    }
                }
                Step::Close if rig.in_flight() < 2 => rig.close(),
                Step::Close => {}
                Step::Land => rig.land(),
                Step::Checkpoint { pieces } => rig.close_checkpoint(pieces),
                Step::Advance(ms) => rig.advance_ms(ms),
                Step::Crash => {
                    rig = rig.crash();
                    vouchers.clear();
                    let end = usize::try_from(rig.durable_end().0).unwrap();
                    entries.truncate(end);
                }
            }
            for (to, said) in rig.replies() {
                let seq = match said {
                    Said::Ack { .. } => continue,
                    Said::Reject(code) => panic!("{code:?}"),
                    Said::Done(seq, ..) | Said::Failed(seq, ..) | Said::Pending(seq, _) | Said::Gone(seq) => seq,
                };
                let (ask, left) = vouchers.get_mut(&to).expect("nobody has asked for it");
                prop_assert_eq!((ask.seq.0, *left), (seq, 1));
                *left -= 1;
                match said {
                    Said::Done(..) => {
                        let first = told.entry(*ask).or_insert_with(|| said.clone());
                        prop_assert_eq!(&*first, &said, "an answer that was told is the only one");
                    }
                    Said::Pending(..) => prop_assert!(!told.contains_key(ask), "what was answered is open no more"),
                    _ => {
                        let durable = rig.durable_end().0;
                        let at = entries.iter().position(|entry| entry == ask);
                        let is_wanted = wanted_from.get(&ask.session.client.0).is_none_or(|&from| ask.seq.0 >= from);
                        let is_durable = at.is_some_and(|at| (at as u64) < durable);
                        prop_assert!(!is_wanted || !is_durable, "{:?} is gone, and was wanted", ask);
                    }
                }
            }
        }
    }
}
