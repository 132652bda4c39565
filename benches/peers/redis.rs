//! Redis Streams: `XADD` over RESP (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).

use std::io::{self, Write};
use std::net::SocketAddr;

use crate::protocol::{self, Connect, Connection, InOrder, Protocol, Taken};

pub(crate) struct Redis;

impl Connect for Redis {
    fn connect(&self, server: SocketAddr, window: usize) -> io::Result<Connection> {
        let mut head = Vec::new();
        // Without MAXLEN: trimming would cost it a fifth of its throughput.
        for word in ["XADD", "bench", "*", "f"] {
            write!(head, "${}\r\n{word}\r\n", word.len())?;
        }
        let protocol = Box::new(Stream { head, replies: InOrder::new(window) });
        Ok(Connection { stream: protocol::open(server)?, input: Vec::new(), protocol })
    }
}

/// An entry's identifier: milliseconds and a number within them.
type EntryId = (u64, u64);

struct Stream {
    /// The four words before the payload.
    head: Vec<u8>,
    replies: InOrder<EntryId>,
}

impl Protocol for Stream {
    fn write_request(&mut self, _slot: usize, payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"*5\r\n");
        out.extend_from_slice(&self.head);
        // Writing to a vector cannot fail.
        let _infallible = write!(out, "${}\r\n", payload.len());
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    fn take_reply(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<Option<Taken>, String> {
        let Some((head, head_len)) = protocol::line(input) else { return Ok(None) };
        match head.split_first() {
            Some((b'$', len)) => {
                let id_len = protocol::number(len).and_then(|len| usize::try_from(len).ok()).filter(|len| *len < 64);
                let id_len = id_len.ok_or_else(|| protocol::unexpected(head))?;
                let len = head_len + id_len + 2;
                let Some(body) = input.get(head_len..len) else { return Ok(None) };
                let id = body.strip_suffix(b"\r\n").and_then(entry_id).ok_or_else(|| protocol::unexpected(body))?;
                Ok(Some(Taken { len, reply: self.replies.stored(id)? }))
            }
            Some((b'-', why)) => Ok(Some(Taken { len: head_len, reply: self.replies.refused(why) })),
            _ => Err(protocol::unexpected(head)),
        }
    }
}

fn entry_id(text: &[u8]) -> Option<EntryId> {
    let dash = text.iter().position(|byte| *byte == b'-')?;
    Some((protocol::number(&text[..dash])?, protocol::number(&text[dash + 1..])?))
}
