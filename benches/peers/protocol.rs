//! What the engine asks of a peer's protocol. Implementations know no sockets' readiness, clocks or windows.

use std::io;
use std::net::{SocketAddr, TcpStream};

/// Opens connections to a peer.
pub(crate) trait Connect {
    /// Opens one, ready for requests. Blocks.
    ///
    /// # Errors
    /// No connection, or the peer answered what it may not.
    fn connect(&self, server: SocketAddr, window: usize) -> io::Result<Connection>;
}

/// The connection is open, and its handshake is done.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    /// What came after the handshake and was read with it.
    pub(crate) input: Vec<u8>,
    pub(crate) protocol: Box<dyn Protocol>,
}

/// One connection's side of a peer's protocol. Requests in flight are told apart by slots, `0..window`; the engine takes
/// the slot that has been free for the longest time, so that replies in order free them in turn.
pub(crate) trait Protocol {
    /// Appends the request that stores this payload.
    fn write_request(&mut self, slot: usize, payload: &[u8], out: &mut Vec<u8>);

    /// Takes one reply off the front of what came; `None` when it is not whole yet. May append to `out` what the peer
    /// wants to hear at once.
    ///
    /// # Errors
    /// What came is no reply that the protocol allows: nothing after it can be trusted.
    fn take_reply(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<Taken>, String>;
}

/// A reply, and how many bytes it took.
pub(crate) struct Taken {
    pub(crate) len: usize,
    pub(crate) reply: Reply,
}

/// A reply of a peer says one of these.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Reply {
    /// The request in this slot is stored, as the peer is configured to understand that.
    Stored { slot: usize },
    /// The request in this slot is not stored, for this reason.
    Refused { slot: usize, why: String },
    /// The reply says nothing about a request.
    Nothing,
}

/// The slots of requests whose replies come in their order.
pub(crate) struct Slots {
    window: usize,
    slot: usize,
}

impl Slots {
    pub(crate) fn new(window: usize) -> Self {
        Self { window, slot: 0 }
    }

    /// That of the oldest request in flight, which is so no longer.
    pub(crate) fn next(&mut self) -> usize {
        let slot = self.slot;
        self.slot = (slot + 1) % self.window;
        slot
    }
}

/// Replies that come in the order of their requests, with identifiers that only grow.
pub(crate) struct InOrder<Id> {
    slots: Slots,
    last_id: Option<Id>,
}

impl<Id: PartialOrd> InOrder<Id> {
    pub(crate) fn new(window: usize) -> Self {
        Self { slots: Slots::new(window), last_id: None }
    }

    /// The oldest request in flight was stored under this identifier.
    ///
    /// # Errors
    /// The identifier is not above the one before: a reply was repeated or went astray.
    pub(crate) fn stored(&mut self, id: Id) -> Result<Reply, String> {
        if self.last_id.as_ref().is_some_and(|last| id <= *last) {
            return Err("an identifier that is not above the one before".to_owned());
        }
        self.last_id = Some(id);
        Ok(Reply::Stored { slot: self.slots.next() })
    }

    /// The oldest request in flight was refused.
    pub(crate) fn refused(&mut self, why: &[u8]) -> Reply {
        Reply::Refused { slot: self.slots.next(), why: String::from_utf8_lossy(why).into_owned() }
    }
}

/// Connects without delaying small segments.
pub(crate) fn open(server: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The first line without its CRLF, and how many bytes it takes with it; `None` when it is not whole yet.
pub(crate) fn line(input: &[u8]) -> Option<(&[u8], usize)> {
    let end = input.iter().position(|byte| *byte == b'\n')?;
    let line = &input[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), end + 1))
}

/// A decimal number that takes the whole of the text.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A line that the protocol does not allow.
pub(crate) fn unexpected(line: &[u8]) -> String {
    format!("unexpected reply: {}", String::from_utf8_lossy(&line[..line.len().min(200)]))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// All that a peer's bytes say of requests.
    pub(crate) fn all(protocol: &mut dyn Protocol, bytes: &[u8]) -> Vec<Reply> {
        let (mut at, mut replies) = (0, Vec::new());
        while let Some(Taken { len, reply }) = protocol.take_reply(&bytes[at..], &mut Vec::new()).unwrap() {
            at += len;
            if reply != Reply::Nothing {
                replies.push(reply);
            }
        }
        replies
    }

    pub(crate) fn stored(slot: usize) -> Reply {
        Reply::Stored { slot }
    }

    pub(crate) fn refused(slot: usize, why: &str) -> Reply {
        Reply::Refused { slot, why: why.to_owned() }
    }
}
