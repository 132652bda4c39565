//! Defects that tests build into the simulated parts, to see that the oracles find them.

use std::net::SocketAddr;

use duragram::model::Record;
use duragram::proto::codec::{self, Answer, AnswerStatus, Datagram};

use crate::core::Core;

/// A defect that is put in, so that an oracle must find it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sabotage {
    /// The disk says that a batch is durable, and a power cut takes it.
    LyingSync,
    /// A start forgets the sessions.
    ForgottenSessions,
    /// A start forgets what a block did to its sessions.
    ForgottenBlocks,
    /// The network flips bits and makes the checksum right.
    ForgedPayload,
    /// The server's acks count one seq more than they should.
    AcksBeyond,
    /// The server sends each reply twice.
    DoubleReply,
    /// The server's floors step back now and then.
    FloorsBack,
    /// A sink says that it has kept what it drops.
    SinkForgets,
    /// A handler's answers go to the record before.
    LaneSkips,
    /// A damaged table is repaired by leaving out what is damaged.
    DamageSkipped,
    /// The server goes on acking when its disk has failed.
    AcksAfterFailure,
    /// Replies never get to one client.
    Starved,
    /// Clients send again one datagram a timeout.
    OneATimeout,
    /// A start forgets which epochs were opened and given.
    ForgottenEpochs,
    /// A start forgets the limit of the server's counter.
    ForgottenLimit,
    /// The targets of sinks say that they have kept what they drop.
    TargetForgets,
    /// Losses of sinks are not stored.
    LossesHidden,
    /// What the first sink holds is trimmed.
    HolderIgnored,
    /// An answer is told before it is durable.
    AnswerEarly,
    /// How far a lane has come is stored before what it has answered.
    MarkBeforeAnswer,
    /// A start forgets answers: what is processed again is answered again.
    ForgottenAnswers,
    /// A start forgets the asks that were open.
    ForgottenAsks,
    /// An ANSWER goes to where the newest datagram of the session came from.
    AnswerToNewest,
    /// A TAKE is held beyond its end.
    HeldBeyond,
    /// An ANSWER is longer than its TAKE.
    AnswerTooLong,
}

/// An ANSWER that a defect holds back: until when, where to, what.
pub(crate) type Stalled = (u64, SocketAddr, Vec<u8>);

/// By so much later than it has to go.
const STALLED_US: u64 = 120_000_000;

impl Core {
    /// What a defect makes of a reply that is an ack.
    pub(crate) fn sabotage_ack(&mut self, sabotage: Sabotage, to: SocketAddr, datagram: &mut [u8]) {
        let len = datagram.len();
        if datagram[0] != 0x12 || datagram[1] & 8 != 0 || len < 32 {
            return;
        }
        let floor = u64::from_le_bytes(datagram[16..24].try_into().expect("eight bytes"));
        let wrong = match sabotage {
            Sabotage::AcksBeyond => floor + 1,
            Sabotage::FloorsBack if self.rng.one_in(8) => floor.saturating_sub(1),
            Sabotage::DoubleReply => {
                self.oracle.replied(to, datagram);
                return;
            }
            _ => return,
        };
        datagram[16..24].copy_from_slice(&wrong.to_le_bytes());
        let crc = crc32fast::hash(&datagram[..len - 4]).to_le_bytes();
        datagram[len - 4..].copy_from_slice(&crc);
    }

    /// What a defect makes of an ANSWER, that came plain; `None`: it goes later.
    pub(crate) fn sabotage_answer(
        &mut self,
        sabotage: Sabotage,
        to: &mut SocketAddr,
        datagram: &mut Vec<u8>,
    ) -> Option<()> {
        let Ok(Datagram::Answer(answer)) = codec::decode(datagram) else { return Some(()) };
        let sid = (answer.client.0, answer.epoch.value());
        match sabotage {
            Sabotage::AnswerToNewest => *to = self.oracle.newest_address(sid).unwrap_or(*to),
            Sabotage::HeldBeyond if answer.status == AnswerStatus::Pending && answer.number == 0 => {
                self.stalled.push((self.now_us + STALLED_US, *to, datagram.clone()));
                return None;
            }
            Sabotage::AnswerTooLong if answer.status == AnswerStatus::Done => {
                let most = self.oracle.body_of(sid, answer.seq.0);
                let number = u32::try_from(most.len()).expect("short");
                *datagram = encoded(&Answer { number, body: &most, ..answer });
            }
            _ => {}
        }
        Some(())
    }

    /// With a defect an answer is told as soon as it is there.
    pub(crate) fn tell_early(&mut self, record: &Record<'_>, body: &[u8]) {
        let (session, seq) = (record.session, record.seq);
        let Some(take) = self.oracle.forgeable((session.client.0, session.epoch.value()), seq.0) else { return };
        let body = if codec::MIN_LEN + body.len() <= take.len { body } else { &[] };
        let number = u32::try_from(body.len()).expect("short");
        let (client, epoch, status) = (session.client, session.epoch, AnswerStatus::Done);
        let datagram = encoded(&Answer { client, epoch, seq, status, number, body });
        self.oracle.replied(take.to, &datagram);
    }
}

fn encoded(answer: &Answer<'_>) -> Vec<u8> {
    let mut buffer = vec![0; codec::MIN_LEN + answer.body.len()];
    let len = Datagram::Answer(*answer).encode(&mut buffer).expect("there is room");
    buffer.truncate(len);
    buffer
}
