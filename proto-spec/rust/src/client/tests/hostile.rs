//! A server, or somebody in its name, that says whatever comes to its mind.

use std::collections::{BTreeMap, BTreeSet};
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::{AskConfig, AskSlot, Client, ClientConfig, Event, MessageId, Outgoing, Slot};
use super::bench::CLIENT;
use super::model_server::encode;
use crate::codec::{self, Ack, Answer, AnswerStatus, Datagram, Durability, Reject, RejectCode, Welcome};
use crate::{ClientId, Epoch, Seq};

#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    Ask(usize),
    Take { epoch: u32, seq: u64 },
    TakeAnswers(usize),
    Forget(u64),
    Answer { epoch: u32, seq: u64, status: u16, number: u32, body: Vec<u8> },
    Transmit(usize),
    Wait(u64),
    TakeEvents(usize),
    Abandon,
    PathChanged,
    Ack { epoch: u32, floor: u64, credit: u16, delay_us: u32, bitmap: Vec<u8> },
    Reject { epoch: u32, code: u16, refused: u64, retry_after_ms: u32 },
    Welcome { epoch: u32, credit: u16, nonce_right: bool },
    Bytes(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let seq = || prop_oneof![8 => 0..40u64, 1 => any::<u64>(), 1 => Just(u64::MAX)];
    let epoch = || prop_oneof![Just(0u32), 1..12u32, any::<u32>()];
    let bitmap = (0..17usize)
        .prop_flat_map(|words| prop::collection::vec(prop_oneof![4 => Just(0u8), 1 => any::<u8>()], words * 8));
    prop_oneof![
        6 => (0..90usize).prop_map(Step::Send),
        4 => (0..50usize).prop_map(Step::Ask),
        1 => (1..9u32, seq()).prop_map(|(epoch, seq)| Step::Take { epoch, seq }),
        2 => (1..10usize).prop_map(Step::TakeAnswers),
        1 => (0..40u64).prop_map(Step::Forget),
        6 => (epoch(), seq(), 0..6u16, prop_oneof![0..20u32, any::<u32>()], prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(epoch, seq, status, number, body)| Step::Answer { epoch, seq, status, number, body }),
        6 => (1..20usize).prop_map(Step::Transmit),
        3 => prop_oneof![0..10_000u64, 0..100_000_000u64].prop_map(Step::Wait),
        2 => (1..10usize).prop_map(Step::TakeEvents),
        1 => Just(Step::Abandon),
        1 => Just(Step::PathChanged),
        6 => (epoch(), seq(), any::<u16>(), any::<u32>(), bitmap)
            .prop_map(|(epoch, floor, credit, delay_us, bitmap)| Step::Ack { epoch, floor, credit, delay_us, bitmap }),
        3 => (epoch(), 0..12u16, seq(), any::<u32>())
            .prop_map(|(epoch, code, refused, retry_after_ms)| Step::Reject { epoch, code, refused, retry_after_ms }),
        2 => (epoch(), any::<u16>(), any::<bool>())
            .prop_map(|(epoch, credit, nonce_right)| Step::Welcome { epoch, credit, nonce_right }),
        1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Step::Bytes),
    ]
}

/// What is left unanswered is named by the epoch that the client is in, so that the answers often fit.
fn epoch_of(named: u32, current: Option<Epoch>) -> u32 {
    if named.is_multiple_of(3) { named } else { current.map_or(named, Epoch::value) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_server_says_each_message_ends_once_and_only_what_was_sent_is_acked(
        slots in 0..20usize,
        hello in any::<bool>(),
        steps in prop::collection::vec(step(), 1..150),
        seed in any::<u64>(),
    ) {
        let config = ClientConfig::new(CLIENT, if hello { None } else { Epoch::new(3) });
        let client = Client::new(config, vec![Slot::EMPTY; slots], vec![0; slots * 50], seed);
        let config = AskConfig { sleeps: seed % 4 == 0, ..AskConfig::HELD };
        let mut client = client.with_asks(config, vec![AskSlot::EMPTY; slots / 2], vec![0; 30]);
        let (mut asked, mut forgotten) = (BTreeSet::new(), BTreeSet::new());
        let mut answered: BTreeMap<MessageId, (Epoch, Seq)> = BTreeMap::new();
        let mut now_us = 0;
        let mut nonce = 0;
        let mut out = [0; 1_200];
        let (mut taken, mut ended) = (0, BTreeMap::new());
        // What went out under which epoch and seq.
        let mut sent: BTreeMap<(Epoch, Seq), Vec<u8>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Send(len) => {
                    let payload = vec![u8::try_from(taken % 256).unwrap(); len];
                    taken += u64::from(client.send(now_us, Outgoing { channel: 0, batch: false, payload: &payload }).is_ok());
                }
                Step::Ask(len) => {
                    let payload = vec![u8::try_from(taken % 256).unwrap(); len];
                    if let Ok(id) = client.ask(now_us, 0, &payload) {
                        taken += 1;
                        asked.insert(id);
                    }
                }
                Step::Take { epoch, seq } => _ = client.take(now_us, Epoch::new(epoch).unwrap(), Seq(seq)),
                Step::TakeAnswers(most) => for _ in 0..most {
                    let Some(answer) = client.poll_answer() else { break };
                    prop_assert!(answer.body.is_empty() || answer.body.len() == answer.length as usize);
                    let Some(id) = answer.message else { continue };
                    prop_assert!(asked.contains(&id) && !forgotten.contains(&id));
                    prop_assert_eq!(answered.insert(id, (answer.epoch, answer.seq)), None, "twice");
                },
                Step::Forget(id) => {
                    if client.forget_ask(MessageId(id)) {
                        forgotten.insert(MessageId(id));
                    }
                    prop_assert!(client.asking() <= slots / 2);
                }
                Step::Answer { epoch, seq, status, number, body } => {
                    let Some(epoch) = Epoch::new(epoch_of(epoch, client.epoch())) else { continue };
                    let answer = Answer {
                        client: CLIENT,
                        epoch,
                        seq: Seq(seq),
                        status: AnswerStatus::from_wire(status),
                        number: if status < 2 && !body.is_empty() { u32::try_from(body.len()).unwrap() } else { number },
                        body: &body,
                    };
                    _ = client.handle_datagram(now_us, &mut encode(&Datagram::Answer(answer)));
                }
                Step::Transmit(most) => for _ in 0..most {
                    let Some(len) = client.poll_transmit(now_us, &mut out) else { break };
                    match codec::decode(&out[..len]).expect("it sends nothing broken") {
                        Datagram::Data(data) => {
                            let before = sent.insert((data.epoch, data.seq), data.payload.to_vec());
                            prop_assert!(before.is_none_or(|before| before == data.payload), "a seq was used twice");
                            prop_assert!(data.attempt <= 7);
                        }
                        Datagram::Hello(hello) => nonce = hello.nonce,
                        Datagram::Take(take) => {
                            prop_assert!(take.room <= 30);
                            prop_assert!(client.takes_open() <= 16);
                        }
                        Datagram::Ping(_) => {}
                        other => prop_assert!(false, "{:?}", other),
                    }
                },
                Step::Wait(us) => {
                    now_us += us;
                    if client.poll_timeout().is_some_and(|at| at <= now_us) {
                        client.handle_timeout(now_us);
                        prop_assert!(client.poll_timeout().is_none_or(|at| at > now_us));
                    }
                }
                Step::TakeEvents(most) => for _ in 0..most {
                    let Some(event) = client.poll_event() else { break };
                    let message = match event {
                        Event::Acked { message, seq, epoch, .. } => {
                            let payload = sent.get(&(epoch, seq));
                            prop_assert!(payload.is_some(), "{:?}", event);
                            let number = u8::try_from(message.0 % 256).unwrap();
                            prop_assert!(payload.unwrap().iter().all(|byte| *byte == number), "another message");
                            message
                        }
                        Event::Failed { message, .. } | Event::Abandoned { message } => message,
                        _ => continue,
                    };
                    prop_assert!(message.0 < taken);
                    prop_assert_eq!(ended.insert(message, event), None);
                },
                Step::Abandon => _ = client.abandon_oldest(),
                Step::PathChanged => client.path_changed(now_us),
                Step::Ack { epoch, floor, credit, delay_us, bitmap } => {
                    let Some(epoch) = Epoch::new(epoch_of(epoch, client.epoch())) else { continue };
                    let ack = Ack {
                        client: CLIENT,
                        epoch,
                        floor: Seq(floor),
                        credit,
                        durability: Durability::Synced,
                        duplicate: false,
                        complete: false,
                        ready: false,
                        delay_us,
                        bitmap: &bitmap,
                    };
                    _ = client.handle_datagram(now_us, &mut encode(&Datagram::Ack(ack)));
                }
                Step::Reject { epoch, code, refused, retry_after_ms } => {
                    let epoch = epoch_of(epoch, client.epoch());
                    let refused = if epoch == 0 { nonce } else { refused };
                    let code = RejectCode::from_wire(code);
                    let reject = Reject { client: CLIENT, epoch, code, refused, retry_after_ms };
                    _ = client.handle_datagram(now_us, &mut encode(&Datagram::Reject(reject)));
                }
                Step::Welcome { epoch, credit, nonce_right } => {
                    let Some(epoch) = Epoch::new(epoch) else { continue };
                    // A server that gives an epoch twice breaks the numbering; the client cannot know all it had.
                    if sent.keys().any(|(used, _)| *used >= epoch) {
                        continue;
                    }
                    let nonce = if nonce_right { nonce } else { !nonce };
                    let client_id = ClientId(CLIENT.0);
                    let welcome = Welcome { client: client_id, epoch, credit, nonce };
                    _ = client.handle_datagram(now_us, &mut encode(&Datagram::Welcome(welcome)));
                }
                Step::Bytes(bytes) => _ = client.handle_datagram(now_us, &mut bytes.clone()),
            }
            prop_assert!(client.in_flight() <= client.queued());
        }
        let mut reported = ended.len() as u64;
        while let Some(event) = client.poll_event() {
            if let Event::Acked { message, .. } = event {
                ended.insert(message, event);
            }
            reported += u64::from(matches!(event, Event::Acked { .. } | Event::Failed { .. } | Event::Abandoned { .. }));
        }
        prop_assert_eq!(reported + client.queued() as u64, taken, "every message has ended or is still queued");
        for (id, place) in answered {
            let acked = matches!(ended.get(&id), Some(Event::Acked { seq, epoch, .. }) if (*epoch, *seq) == place);
            prop_assert!(acked, "{:?} is answered as {:?}, and {:?}", id, place, ended.get(&id));
        }
    }
}
