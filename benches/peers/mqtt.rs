//! MQTT 5: `PUBLISH` with QoS 1, and its `PUBACK` (<https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html>). The packets
//! are those of the crate `rumqttc`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc::v5::mqttbytes::v5::{
    Connect as Hello, ConnectProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode, Filter, Packet,
    PubAckReason, Publish, Subscribe, SubscribeReasonCode, check,
};
use rumqttc::v5::mqttbytes::{Error, QoS};

use crate::protocol::{self, Connect, Connection, Protocol, Reply, Taken};

const TOPIC: &str = "bench";
/// Whoever is to get the messages, and is away: the broker has to keep them.
const SUBSCRIBER: &str = "bench-subscriber";
/// The broker remembers it for so long, in seconds.
const SESSION_S: u32 = 3_600;
/// Connecting and subscribing take no longer.
const SET_UP: Duration = Duration::from_secs(5);
/// In flight at a broker that names no bound (section 3.2.2.3.3).
const IN_FLIGHT_DEFAULT: u16 = u16::MAX;

/// A broker that has a subscriber with a session which stays.
pub(crate) struct Mqtt;

impl Mqtt {
    /// Subscribes with a persistent session, and leaves.
    ///
    /// # Errors
    /// The broker cannot be reached, or refuses that.
    pub(crate) fn set_up(server: SocketAddr) -> io::Result<Self> {
        let properties = ConnectProperties {
            session_expiry_interval: Some(SESSION_S),
            // What an earlier load has left there is not asked for.
            receive_maximum: Some(1),
            ..ConnectProperties::new()
        };
        let mut session = Session::open(server, SUBSCRIBER, false, properties)?;
        let mut subscribe = Subscribe::new(Filter::new(TOPIC, QoS::AtLeastOnce), None);
        subscribe.pkid = 1;
        session.send(&Packet::Subscribe(subscribe))?;
        loop {
            match session.receive()? {
                Packet::SubAck(ack) if ack.return_codes == [SubscribeReasonCode::Success(QoS::AtLeastOnce)] => break,
                Packet::Publish(_) => {}
                other => return Err(unexpected(&other)),
            }
        }
        let reason_code = DisconnectReasonCode::NormalDisconnection;
        session.send(&Packet::Disconnect(Disconnect { reason_code, properties: None }))?;
        // It is away once the broker has closed.
        while session.receive().is_ok() {}
        Ok(Self)
    }
}

impl Connect for Mqtt {
    fn connect(&self, server: SocketAddr, window: usize) -> io::Result<Connection> {
        // Without a name: the broker gives each one of its own.
        let session = Session::open(server, "", true, ConnectProperties::new())?;
        if usize::from(session.in_flight_max) < window {
            let max = session.in_flight_max;
            return Err(io::Error::other(format!("the broker takes no more than {max} messages in flight")));
        }
        session.stream.set_read_timeout(None)?;
        let protocol = Box::new(Publisher { window, packet: BytesMut::new() });
        Ok(Connection { stream: session.stream, input: session.input.to_vec(), protocol })
    }
}

/// A connection that waits for each answer.
struct Session {
    stream: TcpStream,
    input: BytesMut,
    in_flight_max: u16,
}

impl Session {
    fn open(server: SocketAddr, client: &str, clean_start: bool, properties: ConnectProperties) -> io::Result<Self> {
        let stream = protocol::open(server)?;
        stream.set_read_timeout(Some(SET_UP))?;
        let mut session = Self { stream, input: BytesMut::new(), in_flight_max: IN_FLIGHT_DEFAULT };
        let client_id = client.to_owned();
        // It says nothing for as long as a load lasts that is stuck: no keep-alive.
        let hello = Hello { keep_alive: 0, client_id, clean_start, properties: Some(properties) };
        session.send(&Packet::Connect(hello, None, None))?;
        match session.receive()? {
            Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => {
                let max = ack.properties.and_then(|properties| properties.receive_max);
                session.in_flight_max = max.unwrap_or(IN_FLIGHT_DEFAULT);
                Ok(session)
            }
            other => Err(unexpected(&other)),
        }
    }

    fn send(&mut self, packet: &Packet) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None).map_err(io::Error::other)?;
        self.stream.write_all(&bytes)
    }

    fn receive(&mut self) -> io::Result<Packet> {
        loop {
            match Packet::read(&mut self.input, None) {
                Ok(packet) => return Ok(packet),
                Err(Error::InsufficientBytes(_)) => {}
                Err(error) => return Err(io::Error::other(error)),
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                len => self.input.extend_from_slice(&piece[..len]),
            }
        }
    }
}

fn unexpected(packet: &Packet) -> io::Error {
    io::Error::other(format!("unexpected reply: {packet:?}"))
}

struct Publisher {
    window: usize,
    packet: BytesMut,
}

impl Protocol for Publisher {
    fn write_request(&mut self, slot: usize, payload: &[u8], out: &mut Vec<u8>) {
        let mut publish = Publish::new(TOPIC, QoS::AtLeastOnce, Bytes::copy_from_slice(payload), None);
        // Zero is none.
        publish.pkid = u16::try_from(slot + 1).expect("a window is at most 65,535");
        self.packet.clear();
        publish.write(&mut self.packet).expect("a payload is shorter than 256 MiB");
        out.extend_from_slice(&self.packet);
    }

    fn take_reply(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<Option<Taken>, String> {
        let len = match check(input.iter(), None) {
            Ok(header) => header.frame_length(),
            Err(Error::InsufficientBytes(_)) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        self.packet.clear();
        self.packet.extend_from_slice(&input[..len]);
        let reply = match Packet::read(&mut self.packet, None).map_err(|error| error.to_string())? {
            Packet::PubAck(ack) => {
                let slot = usize::from(ack.pkid).checked_sub(1).filter(|slot| *slot < self.window);
                let slot = slot.ok_or_else(|| protocol::unexpected(&input[..len]))?;
                match ack.reason {
                    PubAckReason::Success => Reply::Stored { slot },
                    // Nobody has subscribed, for one: then it is kept nowhere.
                    why => Reply::Refused { slot, why: format!("{why:?}") },
                }
            }
            Packet::PingResp(_) => Reply::Nothing,
            other => return Err(unexpected(&other).to_string()),
        };
        Ok(Some(Taken { len, reply }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::tests::{all, refused, stored};

    fn publisher() -> Publisher {
        Publisher { window: 3, packet: BytesMut::new() }
    }

    #[test]
    fn a_message_goes_out_with_qos_1_and_its_slots_packet_id() {
        let mut out = Vec::new();
        publisher().write_request(1, b"hello", &mut out);
        assert_eq!(out, [&[0x32, 15, 0, 5][..], b"bench", &[0, 2, 0], b"hello"].concat());
    }

    #[test]
    fn acks_free_the_slots_that_they_name_in_any_order_and_in_pieces() {
        let bytes = [0x40, 2, 0, 3, 0x40, 4, 0, 1, 0, 0, 0x40, 3, 0, 2, 0];
        assert_eq!(all(&mut publisher(), &bytes), [stored(2), stored(0), stored(1)]);
        for end in 1..4 {
            assert_eq!(all(&mut publisher(), &bytes[..end]), []);
        }
    }

    #[test]
    fn a_message_that_no_subscriber_gets_is_not_acked() {
        let replies = all(&mut publisher(), &[0x40, 3, 0, 1, 0x10]);
        assert_eq!(replies, [refused(0, "NoMatchingSubscribers")]);
    }

    #[test]
    fn what_a_broker_must_not_say_ends_the_load() {
        for wrong in [&[0x40, 2, 0, 0][..], &[0x40, 2, 0, 4], &[0xe0, 1, 0x8e], &[0x30, 3, 0, 1, b'a'], &[0, 0]] {
            assert!(publisher().take_reply(wrong, &mut Vec::new()).is_err(), "{wrong:?}");
        }
    }
}
