//! Writes datagrams as bytes, with a checksum at their end.

use super::{
    ACK_COMPLETE, ACK_DUPLICATE, ACK_READY, Ack, Answer, BufferTooSmall, CRC_LEN, DATA_ATTEMPT, DATA_BATCH, DATA_BEGIN,
    DATA_END, DATA_SKIP, Data, Datagram, HEADER_LEN, Hello, Ping, Reject, TYPE_ACK, TYPE_ANSWER, TYPE_DATA, TYPE_HELLO,
    TYPE_PING, TYPE_REJECT, TYPE_TAKE, TYPE_WELCOME, Take, VERSION, Welcome,
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
            Self::Answer(answer) => answer.encode(out),
            Self::Take(take) => take.encode(out),
        }
    }
}

impl Data<'_> {
    /// Writes the datagram with its trailer; returns its length in bytes.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.fields().encode(out)
    }

    #[inline]
    pub(super) fn fields(&self) -> Fields<'_> {
        let flags = self.attempt.min(DATA_ATTEMPT)
            | if self.begin { DATA_BEGIN } else { 0 }
            | if self.end { DATA_END } else { 0 }
            | if self.batch { DATA_BATCH } else { 0 }
            | if self.skip { DATA_SKIP } else { 0 };
        Fields {
            kind: TYPE_DATA,
            flags,
            small: self.span,
            epoch: self.epoch.value(),
            client: self.client,
            long: self.seq.0,
            word: u32::from(self.channel) | u32::from(self.options) << 16,
            variable: self.payload,
            zeros: 0,
        }
    }
}

impl Ack<'_> {
    /// Writes the datagram with its trailer; returns its length in bytes.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.fields().encode(out)
    }

    #[inline]
    pub(super) fn fields(&self) -> Fields<'_> {
        Fields {
            kind: TYPE_ACK,
            flags: self.durability as u8
                | if self.duplicate { ACK_DUPLICATE } else { 0 }
                | if self.complete { ACK_COMPLETE } else { 0 }
                | if self.ready { ACK_READY } else { 0 },
            small: self.credit,
            epoch: self.epoch.value(),
            client: self.client,
            long: self.floor.0,
            word: self.delay_us,
            variable: self.bitmap,
            zeros: 0,
        }
    }
}

impl Reject {
    /// Writes the datagram with its trailer; returns its length in bytes.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.fields().encode(out)
    }

    pub(super) fn fields(&self) -> Fields<'static> {
        let fields = Fields::bare(TYPE_REJECT, self.client, self.epoch, self.refused);
        Fields { small: self.code.to_wire(), word: self.retry_after_ms, ..fields }
    }
}

impl Hello {
    /// Writes the datagram with its trailer; returns its length in bytes.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.fields().encode(out)
    }

    pub(super) fn fields(&self) -> Fields<'static> {
        Fields::bare(TYPE_HELLO, self.client, 0, self.nonce)
    }
}

impl Welcome {
    /// Writes the datagram with its trailer; returns its length in bytes.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.fields().encode(out)
    }

    pub(super) fn fields(&self) -> Fields<'static> {
        Fields { small: self.credit, ..Fields::bare(TYPE_WELCOME, self.client, self.epoch.value(), self.nonce) }
    }
}

impl Ping {
    /// Writes the datagram with its trailer; returns its length in bytes.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.fields().encode(out)
    }

    pub(super) fn fields(&self) -> Fields<'static> {
        Fields::bare(TYPE_PING, self.client, self.epoch.value(), 0)
    }
}

impl Answer<'_> {
    /// Writes the datagram with its trailer; returns its length in bytes.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.fields().encode(out)
    }

    pub(super) fn fields(&self) -> Fields<'_> {
        Fields {
            small: self.status.to_wire(),
            word: self.number,
            variable: self.body,
            ..Fields::bare(TYPE_ANSWER, self.client, self.epoch.value(), self.seq.0)
        }
    }
}

impl Take {
    /// Writes the datagram with its trailer; returns its length in bytes.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.fields().encode(out)
    }

    pub(super) fn fields(&self) -> Fields<'static> {
        Fields {
            small: self.span,
            word: self.wait_ms,
            zeros: self.room,
            ..Fields::bare(TYPE_TAKE, self.client, self.epoch.value(), self.seq.0)
        }
    }
}

/// What every datagram consists of: the common header (PROTOCOL.md#header), the word after it, the variable part,
/// and zeros behind that.
pub(super) struct Fields<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    small: u16,
    pub(super) epoch: u32,
    pub(super) client: ClientId,
    pub(super) long: u64,
    word: u32,
    pub(super) variable: &'a [u8],
    pub(super) zeros: usize,
}

impl Fields<'_> {
    fn bare(kind: u8, client: ClientId, epoch: u32, long: u64) -> Self {
        Self { kind, flags: 0, small: 0, epoch, client, long, word: 0, variable: &[], zeros: 0 }
    }

    #[inline]
    fn encode(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let body_len = (HEADER_LEN + 4 + self.variable.len()).saturating_add(self.zeros);
        let out = out.get_mut(..body_len.saturating_add(CRC_LEN)).ok_or(BufferTooSmall)?;
        let (body, trailer) = out.split_at_mut(body_len);
        self.write_head(&mut body[..HEADER_LEN + 4]);
        self.write_variable(&mut body[HEADER_LEN + 4..]);
        trailer.copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        Ok(body_len + CRC_LEN)
    }

    /// Fills what stands between the fixed part and the trailer.
    #[inline]
    pub(super) fn write_variable(&self, out: &mut [u8]) {
        let (variable, zeros) = out.split_at_mut(self.variable.len());
        variable.copy_from_slice(self.variable);
        zeros.fill(0);
    }

    /// Fills the first 28 bytes.
    #[inline]
    pub(super) fn write_head(&self, head: &mut [u8]) {
        head[0] = VERSION << 4 | self.kind;
        head[1] = self.flags;
        head[2..4].copy_from_slice(&self.small.to_le_bytes());
        head[4..8].copy_from_slice(&self.epoch.to_le_bytes());
        head[8..16].copy_from_slice(&self.client.0.to_le_bytes());
        head[16..24].copy_from_slice(&self.long.to_le_bytes());
        head[24..28].copy_from_slice(&self.word.to_le_bytes());
    }
}
