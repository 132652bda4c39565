//! How the golden datagrams describe what they hold.

use duragram_proto::codec::{Datagram, DecodeError};
use serde_json::{Value, json};

use crate::support::hex;

/// A datagram as the file describes it.
pub(crate) fn described(datagram: &Datagram<'_>) -> Value {
    match datagram {
        Datagram::Data(data) => json!({
            "type": "DATA",
            "client": data.client.to_string(),
            "epoch": data.epoch.value(),
            "seq": data.seq.to_string(),
            "span": data.span,
            "attempt": data.attempt,
            "begin": data.begin,
            "end": data.end,
            "batch": data.batch,
            "skip": data.skip,
            "channel": data.channel,
            "options": data.options,
            "payload": hex(data.payload),
        }),
        Datagram::Ack(ack) => json!({
            "type": "ACK",
            "client": ack.client.to_string(),
            "epoch": ack.epoch.value(),
            "floor": ack.floor.to_string(),
            "credit": ack.credit,
            "durability": ack.durability as u8,
            "duplicate": ack.duplicate,
            "complete": ack.complete,
            "ready": ack.ready,
            "delay_us": ack.delay_us,
            "bitmap": hex(ack.bitmap),
        }),
        Datagram::Reject(reject) => json!({
            "type": "REJECT",
            "client": reject.client.to_string(),
            "epoch": reject.epoch,
            "code": reject.code.to_wire(),
            "refused": reject.refused.to_string(),
            "retry_after_ms": reject.retry_after_ms,
        }),
        Datagram::Hello(hello) => json!({
            "type": "HELLO",
            "client": hello.client.to_string(),
            "nonce": hello.nonce.to_string(),
        }),
        Datagram::Welcome(welcome) => json!({
            "type": "WELCOME",
            "client": welcome.client.to_string(),
            "epoch": welcome.epoch.value(),
            "credit": welcome.credit,
            "nonce": welcome.nonce.to_string(),
        }),
        Datagram::Ping(ping) => json!({
            "type": "PING",
            "client": ping.client.to_string(),
            "epoch": ping.epoch.value(),
        }),
        Datagram::Answer(answer) => json!({
            "type": "ANSWER",
            "client": answer.client.to_string(),
            "epoch": answer.epoch.value(),
            "seq": answer.seq.to_string(),
            "status": answer.status.to_wire(),
            "number": answer.number,
            "body": hex(answer.body),
        }),
        Datagram::Take(take) => json!({
            "type": "TAKE",
            "client": take.client.to_string(),
            "epoch": take.epoch.value(),
            "seq": take.seq.to_string(),
            "span": take.span,
            "wait_ms": take.wait_ms,
            "room": take.room,
        }),
    }
}

pub(crate) fn named(error: DecodeError) -> &'static str {
    match error {
        DecodeError::Truncated => "truncated",
        DecodeError::Checksum => "checksum",
        DecodeError::Version { .. } => "version",
        DecodeError::UnknownType => "unknown_type",
        DecodeError::Sealed => "sealed",
        DecodeError::NotSealed => "not_sealed",
        DecodeError::BadSeal => "bad_seal",
        DecodeError::Malformed => "malformed",
        DecodeError::BrokenBatch => "broken_batch",
    }
}
