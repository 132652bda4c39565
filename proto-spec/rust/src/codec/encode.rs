//! Datagrams to bytes.

use super::{
    ACK_DUPLICATE, Ack, BufferTooSmall, CRC_LEN, DATA_ATTEMPT, DATA_BATCH, DATA_BEGIN, DATA_END, DATA_SKIP, Data,
    Datagram, HEADER_LEN, Hello, Ping, Reject, TYPE_ACK, TYPE_DATA, TYPE_HELLO, TYPE_PING, TYPE_REJECT, TYPE_WELCOME,
    VERSION, Welcome,
};
use crate::ClientId;

impl Datagram<'_> {
    /// Writes the datagram with its trailer; returns its length in bytes.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        match self {
            Self::Data(data) => data.encode(out),
            Self::Ack(ack) => ack.encode(out),
            Self::Reject(reject) => reject.encode(out),
            Self::Hello(hello) => hello.encode(out),
            Self::Welcome(welcome) => welcome.encode(out),
            Self::Ping(ping) => ping.encode(out),
        }
    }
}

impl Data<'_> {
    /// Writes the datagram with its trailer; returns its length in bytes.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let flags = self.attempt.min(DATA_ATTEMPT)
            | if self.begin { DATA_BEGIN } else { 0 }
            | if self.end { DATA_END } else { 0 }
            | if self.batch { DATA_BATCH } else { 0 }
            | if self.skip { DATA_SKIP } else { 0 };
        let mut word = [0; 4];
        word[..2].copy_from_slice(&self.channel.to_le_bytes());
        word[2..].copy_from_slice(&self.reserved.to_le_bytes());
        let header = Header {
            kind: TYPE_DATA,
            flags,
            small: self.span,
            epoch: self.epoch.value(),
            client: self.client,
            long: self.seq.0,
        };
        header.encode(u32::from_le_bytes(word), self.payload, out)
    }
}

impl Ack<'_> {
    /// Writes the datagram with its trailer; returns its length in bytes.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let header = Header {
            kind: TYPE_ACK,
            flags: self.durability as u8 | if self.duplicate { ACK_DUPLICATE } else { 0 },
            small: self.credit,
            epoch: self.epoch.value(),
            client: self.client,
            long: self.floor.0,
        };
        header.encode(self.delay_us, self.bitmap, out)
    }
}

impl Reject {
    /// Writes the datagram with its trailer; returns its length in bytes.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let header = Header {
            kind: TYPE_REJECT,
            flags: 0,
            small: self.code.to_wire(),
            epoch: self.epoch,
            client: self.client,
            long: self.refused,
        };
        header.encode(self.retry_after_ms, &[], out)
    }
}

impl Hello {
    /// Writes the datagram with its trailer; returns its length in bytes.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let header = Header { kind: TYPE_HELLO, flags: 0, small: 0, epoch: 0, client: self.client, long: self.nonce };
        header.encode(0, &[], out)
    }
}

impl Welcome {
    /// Writes the datagram with its trailer; returns its length in bytes.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let header = Header {
            kind: TYPE_WELCOME,
            flags: 0,
            small: self.credit,
            epoch: self.epoch.value(),
            client: self.client,
            long: self.nonce,
        };
        header.encode(0, &[], out)
    }
}

impl Ping {
    /// Writes the datagram with its trailer; returns its length in bytes.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let header =
            Header { kind: TYPE_PING, flags: 0, small: 0, epoch: self.epoch.value(), client: self.client, long: 0 };
        header.encode(0, &[], out)
    }
}

/// The common header (PROTOCOL.md#header).
struct Header {
    kind: u8,
    flags: u8,
    small: u16,
    epoch: u32,
    client: ClientId,
    long: u64,
}

impl Header {
    fn encode(&self, word: u32, variable: &[u8], out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let body_len = HEADER_LEN + 4 + variable.len();
        let out = out.get_mut(..body_len + CRC_LEN).ok_or(BufferTooSmall)?;
        let (body, trailer) = out.split_at_mut(body_len);
        body[0] = VERSION << 4 | self.kind;
        body[1] = self.flags;
        body[2..4].copy_from_slice(&self.small.to_le_bytes());
        body[4..8].copy_from_slice(&self.epoch.to_le_bytes());
        body[8..16].copy_from_slice(&self.client.0.to_le_bytes());
        body[16..24].copy_from_slice(&self.long.to_le_bytes());
        body[24..28].copy_from_slice(&word.to_le_bytes());
        body[28..].copy_from_slice(variable);
        trailer.copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        Ok(body_len + CRC_LEN)
    }
}
