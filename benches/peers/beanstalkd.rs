//! beanstalkd's protocol: `put` (`doc/protocol.txt` of its source).

use std::io::{self, Write};
use std::net::SocketAddr;

use crate::protocol::{self, Connect, Connection, InOrder, Protocol, Taken};

pub(crate) struct Beanstalkd;

impl Connect for Beanstalkd {
    fn connect(&self, server: SocketAddr, window: usize) -> io::Result<Connection> {
        let protocol = Box::new(Tube { replies: InOrder::new(window) });
        Ok(Connection { stream: protocol::open(server)?, input: Vec::new(), protocol })
    }
}

struct Tube {
    replies: InOrder<u64>,
}

impl Protocol for Tube {
    fn write_request(&mut self, _slot: usize, payload: &[u8], out: &mut Vec<u8>) {
        // Priority, delay, time to run. Writing to a vector cannot fail.
        let _infallible = write!(out, "put 0 0 60 {}\r\n", payload.len());
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    fn take_reply(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<Option<Taken>, String> {
        let Some((line, len)) = protocol::line(input) else { return Ok(None) };
        let reply = match line.strip_prefix(b"INSERTED ").and_then(protocol::number) {
            Some(id) => self.replies.stored(id)?,
            None if is_refusal(line) => self.replies.refused(line),
            None => return Err(protocol::unexpected(line)),
        };
        Ok(Some(Taken { len, reply }))
    }
}

/// `EXPECTED_CRLF`, `JOB_TOO_BIG` and the like are mistakes of the client, after which replies no longer match requests.
fn is_refusal(line: &[u8]) -> bool {
    line.starts_with(b"BURIED ") || [&b"DRAINING"[..], b"OUT_OF_MEMORY", b"INTERNAL_ERROR"].contains(&line)
}
