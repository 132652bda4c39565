//! What a broker says after it has let us in, and what follows from it.
//!
//! Acknowledgements and disconnects are read here and not by the library, which knows fewer reasons than brokers send: mosquitto
//! refuses what is too large with an acknowledgement of reason 0x95.

use bytes::{Buf as _, Bytes, BytesMut};
use rumqttc::v5::mqttbytes::Error;
use rumqttc::v5::mqttbytes::v5::{PacketType, PubAckProperties, check};

use crate::limits;

/// A packet of a broker's.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Reply {
    /// The broker has taken the message with this packet id, or refuses it.
    Ack(u16, Reason),
    /// The broker ends the connection.
    Disconnect(Reason),
    /// Nothing that is of interest.
    Other,
}

/// A reason code of MQTT 5 (section 2.4), and the broker's own words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Reason {
    code: u8,
    words: Option<String>,
}

/// It says whose failure it is, and so who is to do something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// It is no failure: the message was taken.
    Taken,
    /// The message's: it will never be taken.
    Records,
    /// The broker's, or its configuration's, or ours: no message is taken for now.
    Sinks,
    /// The broker does not say.
    Unclear,
}

impl Reason {
    /// Returns whose failure it is.
    pub(super) fn class(&self) -> Class {
        match self.code {
            // Success; nobody has subscribed.
            0x00 | 0x10 => Class::Taken,
            // Topic name invalid, packet too large, payload format invalid.
            0x90 | 0x95 | 0x99 => Class::Records,
            // Unspecified error, implementation specific error.
            0x80 | 0x83 => Class::Unclear,
            _ => Class::Sinks,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self.code {
            0x00 => "no reason",
            0x10 => "nobody has subscribed",
            0x80 => "unspecified error",
            0x81 => "malformed packet",
            0x82 => "protocol error",
            0x83 => "implementation specific error",
            0x87 => "not authorized: check the user, and what the broker lets it publish",
            0x89 => "the broker is busy",
            0x8b => "the broker is shutting down",
            0x8d => "nothing was heard of us for too long",
            0x8e => "another client has come with the same client id",
            0x90 => "the topic is not accepted",
            0x91 => "the packet id is in use",
            0x93 => "more messages under way than the broker allows",
            0x95 => "the message is too large for the broker",
            0x96 => "too many messages in a time",
            0x97 => "a quota is exceeded",
            0x98 => "an administrator's action",
            0x99 => "the payload is not of the format that is asked for",
            0x9b => "the broker takes no messages of QoS 1",
            _ => "a reason that is not known here",
        };
        write!(f, "{text} (0x{:02x})", self.code)?;
        match &self.words {
            Some(words) => write!(f, ": {}", words.escape_debug()),
            None => Ok(()),
        }
    }
}

/// Takes a packet from what was received, if it is there whole.
///
/// # Errors
/// It is no packet that a broker may send now.
pub(super) fn take(received: &mut BytesMut) -> Result<Option<Reply>, String> {
    let wrong = |error: Error| format!("the broker sends what is no MQTT: {error}");
    let header = match check(received.iter(), Some(limits::MQTT_PACKET_BYTES)) {
        Ok(header) => header,
        Err(Error::InsufficientBytes(_)) => return Ok(None),
        Err(error) => return Err(wrong(error)),
    };
    let kind = header.packet_type().map_err(wrong)?;
    let mut packet = received.split_to(header.frame_length()).freeze();
    // The type, and the length in one to four bytes of which the last has no highest bit.
    packet.advance(1);
    while packet.has_remaining() && packet.get_u8() >= 0x80 {}
    match kind {
        PacketType::PubAck if packet.len() >= 2 => {
            let id = packet.get_u16();
            Ok(Some(Reply::Ack(id, reason(packet))))
        }
        PacketType::Disconnect => Ok(Some(Reply::Disconnect(reason(packet)))),
        PacketType::PingResp => Ok(Some(Reply::Other)),
        kind => Err(format!("the broker sends what was not asked for: {kind:?}")),
    }
}

/// Reads a reason code and properties, each of which may be missing.
fn reason(mut rest: Bytes) -> Reason {
    let code = if rest.has_remaining() { rest.get_u8() } else { 0 };
    // Properties that are no good make a reason without words.
    let properties = if rest.has_remaining() { PubAckProperties::read(&mut rest).ok().flatten() } else { None };
    Reason { code, words: properties.and_then(|properties| properties.reason_string) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<Result<Reply, String>> {
        let mut received = BytesMut::from(bytes);
        let mut replies = Vec::new();
        while let Some(reply) = take(&mut received).transpose() {
            let is_wrong = reply.is_err();
            replies.push(reply);
            if is_wrong {
                break;
            }
        }
        replies
    }

    fn says(code: u8, words: Option<&str>) -> Reason {
        Reason { code, words: words.map(str::to_owned) }
    }

    #[test]
    fn acknowledgements_are_read_with_and_without_reason_and_words() {
        let bytes = [
            &[0x40, 2, 0, 7][..],
            &[0x40, 3, 1, 0, 0x10],
            &[0x40, 4, 0, 8, 0x95, 0],
            &[0x40, 9, 0, 9, 0x97, 5, 0x1f, 0, 2, b'n', b'o'],
            &[0xd0, 0],
            &[0xe0, 0],
            &[0xe0, 1, 0x8e],
            &[0xe0, 2, 0x8b, 0],
        ]
        .concat();
        let expected = [
            Reply::Ack(7, says(0, None)),
            Reply::Ack(256, says(0x10, None)),
            Reply::Ack(8, says(0x95, None)),
            Reply::Ack(9, says(0x97, Some("no"))),
            Reply::Other,
            Reply::Disconnect(says(0, None)),
            Reply::Disconnect(says(0x8e, None)),
            Reply::Disconnect(says(0x8b, None)),
        ];
        assert_eq!(all(&bytes).into_iter().collect::<Result<Vec<_>, _>>().unwrap(), expected);
        for end in 0..4 {
            assert_eq!(all(&bytes[..end]), [], "a part of a packet waits for the rest");
        }
    }

    #[test]
    fn what_a_broker_must_not_send_ends_in_an_error_and_never_in_a_panic() {
        for bytes in [
            &[0x40, 1, 0][..],
            &[0x30, 3, 0, 1, b'a'],
            &[0x00, 0],
            &[0xf0, 0],
            &[0x40, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x40, 0xff, 0xff, 0xff, 0x7f],
        ] {
            assert!(matches!(all(bytes).as_slice(), [Err(_)]), "{bytes:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            all(&bytes);
        }
    }

    #[test]
    fn each_reason_is_somebodys_failure() {
        for (code, class) in [
            (0x00, Class::Taken),
            (0x10, Class::Taken),
            (0x80, Class::Unclear),
            (0x83, Class::Unclear),
            (0x87, Class::Sinks),
            (0x90, Class::Records),
            (0x91, Class::Sinks),
            (0x95, Class::Records),
            (0x97, Class::Sinks),
            (0x99, Class::Records),
            (0xff, Class::Sinks),
        ] {
            assert_eq!(says(code, None).class(), class, "{code:#x}");
        }
    }
}
