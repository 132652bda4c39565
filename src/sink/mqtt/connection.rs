//! A connection to a broker: a socket that blocks, with timeouts, and what MQTT 5 wants said at its beginning and end.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::Error;
use rumqttc::v5::mqttbytes::v5::{
    Connect, ConnectProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode, Login, Packet, Publish,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use zeroize::Zeroize as _;

use super::address::Address;
use super::reply::{self, Reply};
use crate::limits;
use crate::model::MqttTarget;
use crate::sink::{secret, tls};

/// After so long without a sign of us the broker may take us for gone.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Bytes that are read at a time.
const PIECE_BYTES: usize = 16 * 1024;

/// A connection that the broker has accepted.
pub(super) struct Connection {
    stream: Stream,
    received: BytesMut,
    to_send: BytesMut,
    /// Messages that the broker takes before it has acknowledged the first of them.
    pub(super) in_flight_max: usize,
    /// Bytes of a packet that the broker takes.
    pub(super) packet_bytes_max: usize,
    made: Instant,
    used: Instant,
    idle_max: Duration,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(bytes),
            Self::Tls(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl Connection {
    /// Connects to the broker, and is let in. Names, certificates and the password are looked up anew.
    ///
    /// # Errors
    /// The text says what failed, and never the password.
    pub(super) fn open(
        target: &MqttTarget,
        address: &Address,
        client_id: &str,
        timeout: Duration,
    ) -> Result<Self, String> {
        let deadline = Instant::now() + timeout;
        let socket = dial(address, deadline)?;
        let failed = |error: io::Error| format!("connecting to the broker at {address}: {error}");
        socket.set_nodelay(true).map_err(failed)?;
        // What TLS has to say first is waited for while we write.
        socket
            .set_write_timeout(Some(timeout))
            .and_then(|()| socket.set_read_timeout(Some(timeout)))
            .map_err(failed)?;
        let stream = if address.is_encrypted {
            let config = tls::client_config(&target.tls).map_err(|error| error.to_string())?;
            let name = ServerName::try_from(address.host.clone())
                .map_err(|_| format!("url: {} is no name that a certificate could have", address.host))?;
            let client = ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
            Stream::Tls(Box::new(StreamOwned::new(client, socket)))
        } else {
            Stream::Plain(socket)
        };
        let now = Instant::now();
        let mut connection = Self {
            stream,
            received: BytesMut::new(),
            to_send: BytesMut::new(),
            in_flight_max: 0,
            packet_bytes_max: usize::MAX,
            made: now,
            used: now,
            idle_max: limits::MQTT_IDLE,
        };
        let at = |error: String| format!("connecting to the broker at {address}: {error}");
        connection.introduce(target, client_id).map_err(at)?;
        connection.be_let_in(deadline).map_err(at)?;
        Ok(connection)
    }

    /// Makes the packet that tells the broker who we are, to be sent first.
    fn introduce(&mut self, target: &MqttTarget, client_id: &str) -> Result<(), String> {
        let password = target.password.as_ref().map(secret::read).transpose().map_err(|error| error.to_string())?;
        let mut login = target
            .user
            .as_ref()
            .map(|user| Login::new(user.clone(), password.as_ref().map_or("", |password| password.as_str())));
        let connect = Connect {
            keep_alive: u16::try_from(KEEP_ALIVE.as_secs()).unwrap_or(u16::MAX),
            client_id: client_id.to_owned(),
            // What is not acknowledged is sent again by us, so that the broker has nothing to remember.
            clean_start: true,
            properties: Some(ConnectProperties {
                max_packet_size: Some(limits::MQTT_PACKET_BYTES),
                topic_alias_max: None,
                ..ConnectProperties::new()
            }),
        };
        let mut packet = Packet::Connect(connect, None, login.take());
        let made = packet.write(&mut self.to_send, None);
        if let Packet::Connect(_, _, Some(login)) = &mut packet {
            login.password.zeroize();
        }
        made.map_err(|error| error.to_string())?;
        let sent = self.stream.write_all(&self.to_send).and_then(|()| self.stream.flush());
        // The password is in it.
        self.to_send.as_mut().zeroize();
        self.to_send.clear();
        sent.map_err(|error| in_words(&error))
    }

    /// Waits for the broker to let us in, and learns what it takes.
    fn be_let_in(&mut self, deadline: Instant) -> Result<(), String> {
        let accepted = loop {
            match Packet::read(&mut self.received, Some(limits::MQTT_PACKET_BYTES)) {
                Ok(Packet::ConnAck(accepted)) => break accepted,
                Ok(_) => return Err("it sends what was not asked for".to_owned()),
                Err(Error::InsufficientBytes(_)) => {}
                Err(error) => return Err(format!("it sends what is no MQTT 5: {error}")),
            }
            self.receive(deadline).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => "it closes the connection at once; does it speak MQTT 5?".to_owned(),
                _ => in_words(&error),
            })?;
        };
        match accepted.code {
            ConnectReturnCode::Success => {}
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
                return Err(format!("it does not let us in: {:?}; check user and password", accepted.code));
            }
            code => return Err(format!("it does not let us in: {code:?}")),
        }
        let properties = accepted.properties;
        let properties = properties.as_ref();
        if properties.and_then(|properties| properties.max_qos) == Some(0) {
            return Err("it takes no messages of QoS 1".to_owned());
        }
        let in_flight_max = properties.and_then(|properties| properties.receive_max).unwrap_or(u16::MAX);
        self.in_flight_max = usize::from(in_flight_max.clamp(1, limits::MQTT_IN_FLIGHT));
        let bytes_max = properties.and_then(|properties| properties.max_packet_size);
        self.packet_bytes_max = bytes_max.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX);
        if let Some(seconds) = properties.and_then(|properties| properties.server_keep_alive).filter(|&s| s > 0) {
            self.idle_max = self.idle_max.min(Duration::from_secs(seconds.into()) / 2);
        }
        Ok(())
    }

    /// Whether it is still to be used, before anything is sent: neither too old, nor idle for too long, nor ended by the broker.
    ///
    /// # Errors
    /// It is not; the text says why the broker has ended it.
    pub(super) fn look(&mut self) -> Result<(), String> {
        if self.made.elapsed() > limits::SINK_CONNECTION_AGE || self.used.elapsed() > self.idle_max {
            return Err("it is old".to_owned());
        }
        let failed = |error: &io::Error| in_words(error);
        self.stream.socket().set_nonblocking(true).map_err(|error| failed(&error))?;
        let read = self.read();
        self.stream.socket().set_nonblocking(false).map_err(|error| failed(&error))?;
        match read {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(failed(&error)),
            _ => {}
        }
        match self.reply()? {
            Some(Reply::Disconnect(reason)) => Err(format!("the broker has ended the connection: {reason}")),
            Some(Reply::Ack(..)) => Err("the broker acknowledges what was not sent".to_owned()),
            Some(Reply::Other) | None => Ok(()),
        }
    }

    /// Makes the message ready to be sent.
    ///
    /// # Errors
    /// It cannot be put into a packet at all.
    pub(super) fn queue(&mut self, message: &Publish) -> Result<(), Error> {
        message.write(&mut self.to_send).map(drop)
    }

    /// Bytes that are ready to be sent.
    pub(super) fn queued_bytes(&self) -> usize {
        self.to_send.len()
    }

    /// Sends what is ready.
    ///
    /// # Errors
    /// The connection is of no use any more; why, the broker may have said before.
    pub(super) fn send(&mut self) -> Result<(), String> {
        self.used = Instant::now();
        let sent = self.stream.write_all(&self.to_send).and_then(|()| self.stream.flush());
        self.to_send.clear();
        let Err(error) = sent else { return Ok(()) };
        while let Ok(Some(reply)) = self.wait(Instant::now() + Duration::from_millis(100)) {
            if let Reply::Disconnect(reason) = reply {
                return Err(format!("the broker has ended the connection: {reason}"));
            }
        }
        Err(in_words(&error))
    }

    /// Waits for the broker to say something; `None` when it is still to say the rest.
    ///
    /// # Errors
    /// It says nothing until the deadline, or what it must not, or the connection is broken.
    pub(super) fn wait(&mut self, deadline: Instant) -> Result<Option<Reply>, String> {
        if let Some(reply) = self.reply()? {
            return Ok(Some(reply));
        }
        self.receive(deadline).map_err(|error| in_words(&error))?;
        self.used = Instant::now();
        self.reply()
    }

    /// What the broker has said already.
    pub(super) fn reply(&mut self) -> Result<Option<Reply>, String> {
        reply::take(&mut self.received)
    }

    /// Waits for bytes of the broker, no longer than until the deadline.
    fn receive(&mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.socket().set_read_timeout(Some(left))?;
        match self.read() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            read => read,
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let start = self.received.len();
        self.received.resize(start + PIECE_BYTES, 0);
        let read = self.stream.read(&mut self.received[start..]);
        self.received.truncate(start + *read.as_ref().unwrap_or(&0));
        match read? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Connection {
    /// Takes leave, so that the broker does not log a client that has vanished. Never waits.
    fn drop(&mut self) {
        let leave =
            Packet::Disconnect(Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection, properties: None });
        self.to_send.clear();
        if self.stream.socket().set_nonblocking(true).is_ok() && leave.write(&mut self.to_send, None).is_ok() {
            let _it_is_gone_already = self.stream.write(&self.to_send);
        }
        let _it_is_gone_already = self.stream.socket().shutdown(Shutdown::Both);
    }
}

/// Connects to the first of the broker's addresses that answers.
fn dial(address: &Address, deadline: Instant) -> Result<TcpStream, String> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut failed = "there is no time left".to_owned();
    let addresses = address.resolve(left())?;
    for (i, socket) in addresses.iter().enumerate() {
        let share = left() / u32::try_from(addresses.len() - i).unwrap_or(u32::MAX);
        if share.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(socket, share) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = in_words(&error),
        }
    }
    Err(format!("connecting to the broker at {address}: {failed}"))
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "no answer in time".to_owned(),
        ErrorKind::UnexpectedEof => "the broker has closed the connection".to_owned(),
        _ => error.to_string(),
    }
}
