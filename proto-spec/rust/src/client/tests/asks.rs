//! Asks and their answers, rule by rule (PROTOCOL.md#answers-client).

use std::vec;
use std::vec::Vec;

use super::super::{
    AskConfig, AskSlot, Client, ClientConfig, Event, FailReason, Ignored, MessageId, SendError, Slot, Status,
};
use super::bench::{ACK, CLIENT, SECOND};
use super::model_server::encode;
use crate::codec::{self, Ack, Answer, AnswerStatus, Datagram, Reject, RejectCode, Take};
use crate::{ClientId, Epoch, Seq};

type AskingClient = Client<Vec<Slot>, Vec<u8>, Vec<AskSlot>, Vec<u8>>;

pub(super) const EPOCH: Epoch = ACK.epoch;

/// A client driven by hand.
pub(super) struct Asking {
    pub(super) client: AskingClient,
    pub(super) now_us: u64,
}

/// An answer as it was handed out.
pub(super) type Told = (Option<MessageId>, Seq, Status, Vec<u8>);

impl Asking {
    pub(super) fn new(config: AskConfig) -> Self {
        Self::with(ClientConfig { window_initial: 100, ..ClientConfig::new(CLIENT, Some(EPOCH)) }, config, 16)
    }

    pub(super) fn with(client: ClientConfig, config: AskConfig, bodies: usize) -> Self {
        let machine = Client::new(client, vec![Slot::EMPTY; 128], vec![0; 16_384], 1);
        Self { client: machine.with_asks(config, vec![AskSlot::EMPTY; 100], vec![0; bodies * 100]), now_us: 0 }
    }

    /// Seqs 1 to `count` have asked and are acked, and nothing more was sent.
    pub(super) fn acked(config: AskConfig, count: u64) -> Self {
        let mut asking = Self::new(config);
        for _ in 0..count {
            asking.ask();
        }
        let mut floor = 0;
        while floor < count {
            floor += asking.transmit().iter().filter(|bytes| is_data(bytes)).count() as u64;
            asking.now_us += 1_000;
            let ack = asking.ack(floor, false);
            assert_eq!(ack, Ok(()));
        }
        while asking.client.poll_event().is_some() {}
        asking
    }

    pub(super) fn ask(&mut self) -> MessageId {
        self.client.ask(self.now_us, 0, b"open valve 7").expect("room")
    }

    pub(super) fn transmit(&mut self) -> Vec<Vec<u8>> {
        let mut out = [0; 1_200];
        let mut all = Vec::new();
        while let Some(len) = self.client.poll_transmit(self.now_us, &mut out) {
            all.push(out[..len].to_vec());
        }
        all
    }

    /// The TAKEs that it sends now.
    pub(super) fn takes(&mut self) -> Vec<Take> {
        let take = |bytes: &Vec<u8>| match codec::decode(bytes).unwrap() {
            Datagram::Take(take) => Some(take),
            _ => None,
        };
        self.transmit().iter().filter_map(take).collect()
    }

    pub(super) fn taken(&mut self) -> Vec<u64> {
        self.takes().iter().map(|take| take.seq.0).collect()
    }

    pub(super) fn receive(&mut self, datagram: &Datagram<'_>) -> Result<(), Ignored> {
        self.client.handle_datagram(self.now_us, &mut encode(datagram))
    }

    pub(super) fn ack(&mut self, floor: u64, ready: bool) -> Result<(), Ignored> {
        let epoch = self.client.epoch().unwrap();
        self.receive(&Datagram::Ack(Ack { epoch, floor: Seq(floor), ready, ..ACK }))
    }

    pub(super) fn answer(&mut self, seq: u64, status: AnswerStatus, number: u32, body: &[u8]) -> Result<(), Ignored> {
        self.receive(&Datagram::Answer(Answer { client: CLIENT, epoch: EPOCH, seq: Seq(seq), status, number, body }))
    }

    pub(super) fn done(&mut self, seq: u64, body: &[u8]) -> Result<(), Ignored> {
        self.answer(seq, AnswerStatus::Done, u32::try_from(body.len()).unwrap(), body)
    }

    pub(super) fn told(&mut self) -> Vec<Told> {
        let mut all = Vec::new();
        while let Some(answered) = self.client.poll_answer() {
            all.push((answered.message, answered.seq, answered.status, answered.body.to_vec()));
        }
        all
    }

    /// Moves on to the deadline and handles it; returns how long that took.
    pub(super) fn time_out(&mut self) -> u64 {
        let at = self.client.poll_timeout().expect("a deadline");
        let waited = at - self.now_us;
        self.now_us = at;
        self.client.handle_timeout(at);
        waited
    }
}

pub(super) fn is_data(bytes: &[u8]) -> bool {
    matches!(codec::decode(bytes), Ok(Datagram::Data(_)))
}

pub(super) fn within(value: u64, least: u64) -> bool {
    (least..=least + least / 4).contains(&value)
}

#[test]
fn the_example_of_the_specification_is_spoken_to_the_letter() {
    let config = ClientConfig::new(ClientId(0xa1), Epoch::new(3));
    let client = Client::new(config, vec![Slot::EMPTY; 8], vec![0; 400], 1);
    let config = AskConfig { room: 0, first_wait_ms: 20_000, ..AskConfig::HELD };
    let mut client = client.with_asks(config, vec![AskSlot::EMPTY; 4], vec![0; 64]);
    let hex = |text: &str| -> Vec<u8> {
        let text: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
        let digits = text.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    };
    let mut out = [0; 1_200];
    let sent = |client: &mut Client<_, _, _, _>, now_us, out: &mut [u8]| -> Vec<u8> {
        client.poll_transmit(now_us, out).map_or(vec![], |len| out[..len].to_vec())
    };
    for _ in 1..5 {
        client.send(0, super::super::Outgoing { channel: 0, batch: false, payload: b"" }).unwrap();
        client.poll_transmit(0, &mut out).unwrap();
    }
    let ack = Ack { client: ClientId(0xa1), epoch: Epoch::new(3).unwrap(), floor: Seq(4), ..ACK };
    client.handle_datagram(1, &mut encode(&Datagram::Ack(ack))).unwrap();
    let message = client.ask(2, 0, b"open valve 7").unwrap();
    assert_eq!(
        sent(&mut client, 2, &mut out),
        hex("11300000 03000000 a100000000000000 0500000000000000 0000 0200 6f70656e2076616c76652037 7334c469")
    );
    let ack = hex("12000004 03000000 a100000000000000 0500000000000000 aa000000 c01af895");
    client.handle_datagram(3, &mut ack.clone()).unwrap();
    while client.poll_event().is_some() {}
    assert_eq!(
        sent(&mut client, 3, &mut out),
        hex("18000000 03000000 a100000000000000 0500000000000000 204e0000 7cb46198")
    );
    let answer = hex("17000000 03000000 a100000000000000 0500000000000000 0b000000 3227f09c");
    client.handle_datagram(4, &mut answer.clone()).unwrap();
    assert_eq!(
        sent(&mut client, 4, &mut out),
        hex("18000000 03000000 a100000000000000 0500000000000000 204e0000 0000000000000000000000 3860dfaf")
    );
    let answer = hex("17000000 03000000 a100000000000000 0500000000000000 0b000000 76616c76653a206f70656e d0109998");
    client.handle_datagram(5, &mut answer.clone()).unwrap();
    let answered = client.poll_answer().unwrap();
    assert_eq!((answered.message, answered.status, answered.body), (Some(message), Status::Done, &b"valve: open"[..]));
    assert!(client.poll_answer().is_none() && sent(&mut client, 5, &mut out).is_empty());
    let at = client.poll_timeout().unwrap();
    client.handle_timeout(at);
    // It names a seq that will not ask soon, where the example names the next one: the base is the same.
    let farewell = sent(&mut client, at, &mut out);
    let Ok(Datagram::Take(take)) = codec::decode(&farewell) else { panic!("{farewell:02x?}") };
    let of_example = hex("18000000 03000000 a100000000000000 0600000000000000 00000000 7869c935");
    let Ok(Datagram::Take(example)) = codec::decode(&of_example) else { panic!("{of_example:02x?}") };
    assert_eq!((take.base(), take.wait_ms, take.room), (example.base(), 0, 0));
    let gone = hex("17000300 03000000 a100000000000000 0600000000000000 00000000 3b9f38ce");
    assert_eq!(client.handle_datagram(at, &mut gone.clone()), Err(Ignored::Unasked));
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn no_more_than_64_asks_are_unfinished_and_an_answer_makes_room() {
    let mut asking = Asking::acked(AskConfig::HELD, 64);
    assert_eq!(asking.client.ask(asking.now_us, 0, b"one more"), Err(SendError::Full));
    asking
        .client
        .send(asking.now_us, super::super::Outgoing { channel: 0, batch: false, payload: b"" })
        .expect("no ask");
    asking.transmit();
    asking.done(1, b"").unwrap();
    assert_eq!(asking.client.ask(asking.now_us, 0, b"one more"), Err(SendError::Full), "it is not handed out yet");
    assert_eq!(asking.told().len(), 1);
    asking.ask();
    let mut plain = super::bench::Bench::new(Some(7));
    assert_eq!(plain.client.ask(0, 0, b"from who cannot"), Err(SendError::Full));
}

#[test]
fn what_was_had_above_one_that_is_not_acked_takes_the_room_that_it_takes_at_the_server() {
    let mut asking = Asking::new(AskConfig::HELD);
    for _ in 0..64 {
        asking.ask();
    }
    asking.transmit();
    let bitmap = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    asking.receive(&Datagram::Ack(Ack { bitmap: &bitmap, floor: Seq(0), ..ACK })).unwrap();
    for seq in 2..=64 {
        asking.done(seq, b"").unwrap();
    }
    assert_eq!((asking.told().len(), asking.client.asking()), (63, 1));
    // The server keeps all 63 for as long as seq 1 is missing; a 65th would leave it without room for seq 1.
    assert_eq!(asking.client.ask(asking.now_us, 0, b""), Err(SendError::Full));
    assert_eq!(asking.done(7, b""), Err(Ignored::Unasked));
    asking.ack(64, false).unwrap();
    asking.transmit();
    asking.done(1, b"").unwrap();
    asking.told();
    for _ in 0..64 {
        asking.ask();
    }
}

#[test]
fn where_the_server_might_have_no_room_it_is_told_what_was_had_before_one_more_asks() {
    for had in [3, 64] {
        let mut asking = Asking::acked(AskConfig::HELD, 64);
        asking.transmit();
        for seq in 1..=had {
            asking.done(seq, b"").unwrap();
        }
        assert_eq!(asking.told().len() as u64, had);
        asking.ask();
        asking.ask();
        let sent = asking.transmit();
        let Ok(Datagram::Take(first)) = codec::decode(&sent[0]) else { panic!("{had}: a message goes first") };
        assert_eq!(first.seq.0 - u64::from(first.span), had + 1, "below it all is forgotten");
        assert_eq!(sent.iter().filter(|bytes| is_data(bytes)).count(), 2);
        // What waits is in no hurry where there is room.
        asking.ack(66, false).unwrap();
        if had == 64 {
            asking.ask();
            assert!(is_data(&asking.transmit()[0]));
        }
    }
}

#[test]
fn a_refused_ask_has_the_server_told_of_what_was_had() {
    let mut asking = Asking::acked(AskConfig::HELD, 2);
    asking.transmit();
    asking.done(1, b"").unwrap();
    asking.done(2, b"").unwrap();
    asking.told();
    asking.ask();
    assert_eq!(asking.takes(), []);
    asking.receive(&busy(3)).unwrap();
    assert_eq!(asking.takes().iter().map(|take| (take.seq.0, take.span)).collect::<Vec<_>>(), [(65_538, 65_535)]);
    // The farewell was lost: each refusal has another one sent.
    let mut told = 0;
    for _ in 0..8 {
        asking.time_out();
        let sent = asking.transmit();
        if sent.iter().any(|bytes| is_data(bytes)) {
            asking.receive(&busy(3)).unwrap();
            told += asking.takes().len();
        }
    }
    assert!(told >= 2, "{told}");
}

#[test]
fn a_server_without_the_extension_fails_the_message_and_nothing_waits() {
    let mut asking = Asking::new(AskConfig::HELD);
    let message = asking.ask();
    asking.transmit();
    let reject = Reject { client: CLIENT, epoch: 7, code: RejectCode::Unsupported, refused: 1, retry_after_ms: 0 };
    asking.receive(&Datagram::Reject(reject)).unwrap();
    assert_eq!(asking.client.poll_event(), Some(Event::Failed { message, reason: FailReason::Unsupported }));
    assert_eq!((asking.client.asking(), asking.told(), asking.takes()), (0, vec![], vec![]));
    assert_eq!(asking.client.poll_timeout(), None);
}

fn busy(refused: u64) -> Datagram<'static> {
    Datagram::Reject(Reject { client: CLIENT, epoch: 7, code: RejectCode::Busy, refused, retry_after_ms: 5_000 })
}

#[test]
fn an_ask_that_there_is_no_room_for_is_held_back_alone() {
    let mut asking = Asking::acked(AskConfig::HELD, 1);
    asking.ask();
    assert_eq!(asking.transmit().iter().filter(|bytes| is_data(bytes)).count(), 1);
    asking.receive(&busy(2)).unwrap();
    assert_eq!(asking.client.poll_event(), None, "nobody else waits");
    asking.client.send(asking.now_us, super::super::Outgoing { channel: 0, batch: false, payload: b"" }).unwrap();
    let sent = asking.transmit();
    let seqs: Vec<u64> = sent.iter().map(|bytes| super::bench::data(bytes).seq.0).collect();
    assert_eq!(seqs, [3], "seq 2 waits, seq 3 does not");
    let bitmap = [0b10, 0, 0, 0, 0, 0, 0, 0];
    asking.receive(&Datagram::Ack(Ack { bitmap: &bitmap, floor: Seq(1), ..ACK })).unwrap();
    let begun_us = asking.now_us;
    let again = loop {
        asking.time_out();
        let sent = asking.transmit();
        let seqs = sent.iter().filter(|bytes| is_data(bytes)).map(|bytes| super::bench::data(bytes));
        if let Some(data) = seqs.into_iter().find(|data| data.seq == Seq(2)) {
            assert!(data.asks());
            break asking.now_us - begun_us;
        }
    };
    assert!((5 * SECOND..=7_500_000).contains(&again), "{again}");
    asking.ack(3, false).unwrap();
    assert_eq!(asking.taken(), [2]);
}

#[test]
fn takes_are_stopped_neither_by_a_reject_nor_by_credit() {
    let mut asking = Asking::acked(AskConfig::HELD, 2);
    asking.client.send(asking.now_us, super::super::Outgoing { channel: 0, batch: false, payload: b"" }).unwrap();
    let mut out = [0; 1_200];
    asking.client.poll_transmit(asking.now_us, &mut out).unwrap();
    asking.receive(&busy(3)).unwrap();
    assert!(matches!(asking.client.poll_event(), Some(Event::ServerWaits { .. })));
    assert_eq!(asking.taken(), [1, 2]);
    let mut asking = Asking::new(AskConfig::HELD);
    asking.ask();
    asking.transmit();
    asking.receive(&Datagram::Ack(Ack { floor: Seq(1), credit: 0, ..ACK })).unwrap();
    asking.ask();
    assert_eq!(asking.taken(), [1]);
}

#[test]
fn only_what_asked_and_is_acked_is_taken_and_the_span_reaches_down_to_the_lowest_that_is_not_finished() {
    let mut asking = Asking::new(AskConfig::HELD);
    for n in 0..5 {
        match n {
            2 => _ = asking.client.send(0, super::super::Outgoing { channel: 0, batch: false, payload: b"" }).unwrap(),
            _ => _ = asking.ask(),
        }
    }
    assert_eq!(asking.transmit().len(), 5);
    // Seqs 1 and 2 are missing, 3 never asked.
    let bitmap = [0b1110, 0, 0, 0, 0, 0, 0, 0];
    asking.receive(&Datagram::Ack(Ack { bitmap: &bitmap, floor: Seq(0), ..ACK })).unwrap();
    assert_eq!(asking.client.waiting().collect::<Vec<_>>(), [(EPOCH, Seq(2)), (EPOCH, Seq(4))]);
    let sent = asking.takes();
    assert_eq!(sent.iter().map(|take| (take.seq.0, take.span)).collect::<Vec<_>>(), [(2, 1), (4, 3)]);
    assert!(sent.iter().all(|take| take.wait_ms == 1_000 && take.room == 256));
    asking.done(2, b"").unwrap();
    asking.told();
    // Seq 1 is not acked, and its answer will be wanted.
    asking.now_us += SECOND;
    asking.ack(5, false).unwrap();
    let sent = asking.takes();
    assert_eq!(sent.iter().map(|take| (take.seq.0, take.span)).collect::<Vec<_>>(), [(1, 0), (5, 4)]);
}

#[test]
fn what_lies_too_far_above_the_lowest_is_not_taken_before_that_is_had() {
    let mut asking = Asking::new(AskConfig::HELD);
    let old = Epoch::new(3).unwrap();
    for seq in [5, 65_540, 65_541] {
        asking.client.take(0, old, Seq(seq)).unwrap();
    }
    assert_eq!(
        asking.takes().iter().map(|take| (take.seq.0, take.span)).collect::<Vec<_>>(),
        [(5, 0), (65_540, 65_535)]
    );
    let gone =
        |seq| Answer { client: CLIENT, epoch: old, seq: Seq(seq), status: AnswerStatus::Gone, number: 0, body: &[] };
    asking.receive(&Datagram::Answer(gone(5))).unwrap();
    assert_eq!(asking.told().len(), 1);
    assert_eq!(asking.takes().iter().map(|take| (take.seq.0, take.span)).collect::<Vec<_>>(), [(65_541, 1)]);
}

#[test]
fn an_answer_counts_for_what_waits_and_is_told_once() {
    let mut asking = Asking::new(AskConfig::HELD);
    let message = asking.ask();
    asking.transmit();
    assert_eq!(asking.done(1, b"early"), Err(Ignored::Unasked), "it is not acked");
    asking.ack(1, false).unwrap();
    let rtt = asking.client.rtt_us();
    asking.transmit();
    let answer = Answer { client: CLIENT, epoch: EPOCH, seq: Seq(1), status: AnswerStatus::Done, number: 0, body: &[] };
    let other = Answer { client: ClientId(9), ..answer };
    assert_eq!(asking.receive(&Datagram::Answer(other)), Err(Ignored::OtherClient));
    let other = Answer { epoch: Epoch::new(6).unwrap(), ..answer };
    assert_eq!(asking.receive(&Datagram::Answer(other)), Err(Ignored::OtherEpoch));
    assert_eq!(asking.receive(&Datagram::Answer(Answer { seq: Seq(2), ..answer })), Err(Ignored::Unasked));
    asking.now_us += SECOND;
    assert_eq!(asking.answer(1, AnswerStatus::Failed, 4, b"oops"), Ok(()));
    assert_eq!(asking.done(1, b"late"), Err(Ignored::Unasked));
    assert_eq!(asking.told(), [(Some(message), Seq(1), Status::Failed, b"oops".to_vec())]);
    assert_eq!(asking.done(1, b"late"), Err(Ignored::Unasked));
    assert_eq!((asking.told(), asking.client.rtt_us()), (vec![], rtt));
}

#[test]
fn a_body_that_did_not_fit_is_taken_with_as_much_room_as_it_needs() {
    let mut asking = Asking::with(ClientConfig::new(CLIENT, Some(EPOCH)), AskConfig { room: 10, ..AskConfig::HELD }, 8);
    let messages = [asking.ask(), asking.ask()];
    asking.transmit();
    asking.ack(2, false).unwrap();
    assert_eq!(asking.takes().iter().map(|take| take.room).collect::<Vec<_>>(), [10, 10]);
    asking.answer(1, AnswerStatus::Done, 700, b"").unwrap();
    let again = asking.takes();
    assert_eq!(again.iter().map(|take| (take.seq.0, take.room)).collect::<Vec<_>>(), [(1, 700)]);
    // The first answer, doubled on its way, brings nothing about.
    asking.answer(1, AnswerStatus::Done, 700, b"").unwrap();
    assert_eq!((asking.takes(), asking.told()), (vec![], vec![]));
    asking.done(1, &[7; 700]).unwrap();
    // No datagram, or no buffer, takes this one: its length is all that is told.
    asking.answer(2, AnswerStatus::Done, 801, b"").unwrap();
    assert_eq!(
        asking.client.poll_answer().map(|a| (a.message, a.length, a.body.len())),
        Some((Some(messages[0]), 700, 700))
    );
    assert_eq!(
        asking.client.poll_answer().map(|a| (a.message, a.length, a.body.len())),
        Some((Some(messages[1]), 801, 0))
    );
}

#[test]
fn an_answer_that_there_is_no_room_for_is_taken_again_when_others_were_handed_out() {
    let mut asking = Asking::with(ClientConfig::new(CLIENT, Some(EPOCH)), AskConfig::HELD, 2);
    asking.ask();
    asking.ask();
    asking.transmit();
    asking.ack(2, false).unwrap();
    assert_eq!(asking.taken(), [1, 2]);
    asking.done(1, &[1; 150]).unwrap();
    asking.done(2, &[2; 100]).unwrap();
    assert_eq!(asking.told().iter().map(|told| told.3.len()).collect::<Vec<_>>(), [150]);
    asking.time_out();
    assert_eq!(asking.taken(), [2]);
    asking.done(2, &[2; 100]).unwrap();
    assert_eq!(asking.told()[0].3, [2; 100]);
}

#[test]
fn an_answer_that_is_not_wanted_any_more_moves_the_base_on() {
    let mut asking = Asking::acked(AskConfig::HELD, 2);
    let first = MessageId(0);
    assert!(asking.client.forget_ask(first) && !asking.client.forget_ask(first));
    assert_eq!(asking.takes().iter().map(|take| (take.seq.0, take.span)).collect::<Vec<_>>(), [(2, 0)]);
    assert_eq!(asking.done(1, b""), Err(Ignored::Unasked));
    assert!(asking.client.forget_taken(EPOCH, Seq(2)));
    assert_eq!(asking.takes(), []);
    asking.time_out();
    assert_eq!(asking.taken(), [65_538]);
    // One that is not acked: the message goes on.
    let message = asking.ask();
    asking.client.forget_ask(message);
    assert!(is_data(&asking.transmit()[0]));
    asking.ack(3, false).unwrap();
    assert!(matches!(asking.client.poll_event(), Some(Event::Acked { .. })));
    assert_eq!(asking.takes(), []);
}

#[test]
fn an_answer_that_is_left_for_another_run_is_neither_taken_nor_forgotten() {
    let mut asking = Asking::acked(AskConfig::HELD, 1);
    let unacked = asking.ask();
    assert!(asking.client.leave_ask(MessageId(0)) && asking.client.leave_ask(unacked));
    asking.transmit();
    asking.ack(2, false).unwrap();
    asking.ask();
    asking.client.finish_asks();
    asking.transmit();
    asking.ack(3, false).unwrap();
    assert_eq!(asking.takes().iter().map(|take| (take.seq.0, take.span)).collect::<Vec<_>>(), [(3, 2)]);
    assert_eq!(asking.done(1, b""), Err(Ignored::Unasked));
    asking.done(3, b"").unwrap();
    asking.told();
    assert_eq!((asking.takes(), asking.client.owes_farewell()), (vec![], false), "a farewell would forget them");
    assert_eq!(asking.client.waiting().collect::<Vec<_>>(), [(EPOCH, Seq(1)), (EPOCH, Seq(2))]);
}

#[test]
fn a_message_that_is_given_up_waits_for_no_answer() {
    let mut asking = Asking::new(AskConfig::HELD);
    asking.ask();
    asking.transmit();
    asking.client.abandon_oldest();
    assert_eq!(asking.client.asking(), 0);
}

#[test]
fn a_client_that_never_asks_pays_for_a_few_words() {
    let words = |bytes: usize| bytes / size_of::<u64>();
    let without = size_of::<Client<[Slot; 1], [u8; 1]>>();
    let with = size_of::<Client<[Slot; 1], [u8; 1], [AskSlot; 1], [u8; 8]>>();
    assert_eq!(with - without, size_of::<AskSlot>() + 8);
    let asks = size_of::<super::super::asks::Asks<[AskSlot; 0], [u8; 0]>>();
    assert!(words(asks) <= 16, "{asks} bytes");
    assert!(size_of::<Slot>() <= 64, "{}", size_of::<Slot>());
}
