//! The rules for one session.

use std::num::NonZeroU32;

use duragram_proto::Seq;
use duragram_proto::window::{DedupWindow, Verdict};

use crate::model::{Peer, SessionId, SessionRecord};

/// One sequence space. The invariant that all rests on: a seq counts as accounted for only if its entry, a gap entry or
/// the client's SKIP is in the journal, or is in the block that is being built and not acked before that is durable.
#[derive(Debug)]
pub struct Session {
    pub(super) id: SessionId,
    window: DedupWindow,
    /// In seconds of service: the time that the server has run, over all its runs. So neither a stepping clock nor a
    /// long standstill makes sessions expire whose clients had no chance to be heard.
    pub(super) last_active_s: u64,
    /// The nonce of the HELLO that opened it, until something comes in it. Few sessions have one at a time.
    hello_nonce: Option<Box<u64>>,
    /// `None` for a plain session.
    sealed: Option<Box<Sealed>>,
    /// Where the committer keeps the pending ack for this session; `u32::MAX` for none.
    pub(in crate::dialect::duragram) pending: u32,
    /// The number of the commit that the session last changed for: until that is durable it may not be acked.
    pub(in crate::dialect::duragram) changed_for: u64,
    /// The session's record is part of the commit being built.
    pub(in crate::dialect::duragram) recorded: bool,
    /// How many of its asks are answered.
    pub(in crate::dialect::duragram) ready: u8,
    /// Changed since the last checkpoint.
    pub(super) touched: bool,
    /// The table lists it as the one of its client in which nothing has come.
    pub(super) listed: bool,
}

/// What only a sealed session has.
#[derive(Clone, Copy, Debug, Default)]
struct Sealed {
    /// The highest counter of a datagram that has come in it since the server's start; `peer` sent that datagram.
    counter: u64,
    peer: Option<Peer>,
    beside: Neighbours,
}

/// The places of the client's next older and next newer sealed session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Neighbours {
    pub(super) older: Option<Place>,
    pub(super) newer: Option<Place>,
}

/// A place in the session table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place(NonZeroU32);

impl Place {
    /// The place that an index stands for.
    pub(super) fn new(index: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(index))
    }

    /// The index that it stands for.
    pub(super) fn index(self) -> u32 {
        self.0.get() - 1
    }
}

/// What the rules say of one datagram.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Judgement {
    /// To be journaled; the session counts it from now on.
    New(FloorMove),
    /// Known: not to be journaled again, to be acked again.
    Duplicate(FloorMove),
    /// Beyond floor + window, after the floor has moved: REJECT 5.
    BeyondWindow(FloorMove),
    /// The client counts seqs as acked that a client of this journal cannot have reached: REJECT 4. Nothing changed.
    Stale,
}

/// How rule 4 moved the floor. What it says must be durable before the session's next ack.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FloorMove {
    /// Seqs passed that the client has abandoned.
    pub abandoned: u64,
    /// Runs of seqs passed that the client counts as acked and that the journal does not hold: first and last.
    pub lost: Vec<(Seq, Seq)>,
}

impl FloorMove {
    /// Whether the floor passed any seq that was not journaled.
    pub fn is_some(&self) -> bool {
        self.abandoned > 0 || !self.lost.is_empty()
    }
}

impl Session {
    /// A plain session in which everything up to `floor` is accounted for.
    pub fn new(id: SessionId, floor: Seq, hello_nonce: Option<u64>) -> Self {
        Self {
            id,
            window: DedupWindow::new(floor),
            last_active_s: 0,
            hello_nonce: hello_nonce.map(Box::new),
            sealed: None,
            pending: u32::MAX,
            changed_for: 0,
            recorded: false,
            ready: 0,
            touched: false,
            listed: false,
        }
    }

    /// A sealed session in which everything up to `floor` is accounted for.
    pub fn new_sealed(id: SessionId, floor: Seq) -> Self {
        Self { sealed: Some(Box::default()), ..Self::new(id, floor, None) }
    }

    /// The session as a checkpoint kept it; `None` for a record that no session can have made.
    pub fn restore(record: &SessionRecord) -> Option<Self> {
        Some(Self {
            window: DedupWindow::from_words(record.floor, &record.above)?,
            last_active_s: record.last_active_s,
            sealed: record.sealed.then(Box::default),
            ..Self::new(record.id, record.floor, record.hello_nonce)
        })
    }

    /// The session as a checkpoint keeps it.
    pub fn record(&self) -> SessionRecord {
        SessionRecord {
            id: self.id,
            floor: self.window.floor(),
            above: self.window.words().collect(),
            last_active_s: self.last_active_s,
            hello_nonce: self.hello_nonce.as_deref().copied(),
            sealed: self.sealed.is_some(),
        }
    }

    /// Returns the client and the epoch that name the session.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Whether sealed datagrams alone belong to it.
    pub fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// Notes that a sealed datagram with this counter has come from `peer`. Returns where the one came from that has the
    /// highest so far, unless it is this one: there the acks go (PROTOCOL.md#sealed-address).
    pub fn heard_from(&mut self, counter: u64, peer: Peer) -> Option<Peer> {
        let sealed = self.sealed.as_mut()?;
        if sealed.peer.is_some() && counter <= sealed.counter {
            return sealed.peer;
        }
        (sealed.counter, sealed.peer) = (counter, Some(peer));
        None
    }

    /// Its neighbours; none for a plain session.
    pub(super) fn neighbours(&self) -> Neighbours {
        self.sealed.as_ref().map_or_else(Neighbours::default, |sealed| sealed.beside)
    }

    /// The same, to be changed; `None` for a plain session.
    pub(super) fn neighbours_mut(&mut self) -> Option<&mut Neighbours> {
        self.sealed.as_mut().map(|sealed| &mut sealed.beside)
    }

    /// Every seq up to here is accounted for.
    pub fn floor(&self) -> Seq {
        self.window.floor()
    }

    /// Whether an ACK with the floor and so many bytes of bitmap tells of every seq that is accounted for
    /// (PROTOCOL.md#ack, COMPLETE).
    pub fn is_told_by(&self, bitmap_len: usize) -> bool {
        self.window.highest().above(self.window.floor()) <= 8 * bitmap_len as u64
    }

    /// Whether anything above the floor is accounted for.
    pub fn has_gaps(&self) -> bool {
        self.window.highest() > self.window.floor()
    }

    /// Writes the ACK's bitmap, cut to `out`; returns its length in bytes.
    pub fn write_bitmap(&self, out: &mut [u8]) -> usize {
        self.window.write_bitmap(out)
    }

    /// Whether the seq is accounted for already.
    pub fn holds(&self, seq: Seq) -> bool {
        matches!(self.window.classify(seq, u16::MAX), Verdict::Duplicate)
    }

    /// Whether this session was opened by the HELLO with this nonce, and nothing has come in it yet.
    pub fn is_fresh_from(&self, nonce: u64) -> bool {
        self.hello_nonce.as_deref() == Some(&nonce) && self.is_unused()
    }

    /// Whether it was opened by a HELLO, and nothing has come in it yet.
    pub(super) fn is_unused(&self) -> bool {
        self.hello_nonce.is_some() && self.window.highest() == Seq::ZERO
    }

    /// Makes it, in which nothing has come, the session of another HELLO.
    pub(super) fn renew(&mut self, id: SessionId, nonce: u64) {
        self.id = id;
        self.hello_nonce = Some(Box::new(nonce));
    }

    /// Applies rules 2 to 5 to a datagram: `base` is the lowest seq that its client still holds unacked.
    pub fn receive(&mut self, seq: Seq, base: Seq, skip: bool, window: u16) -> Judgement {
        let judgement = self.judge(seq, base, skip, window);
        if matches!(judgement, Judgement::New(_)) {
            self.take(seq);
        }
        judgement
    }

    /// Takes what is new (PROTOCOL.md#rule-5).
    #[inline]
    pub fn take(&mut self, seq: Seq) {
        self.hello_nonce = None;
        self.window.insert(seq);
    }

    /// Applies rules 2 to 4: what is new is not counted as taken, and the floor moves all the same.
    // What it returns goes through memory else, at a price that shows in the bulk benchmark.
    #[inline]
    pub fn judge(&mut self, seq: Seq, base: Seq, skip: bool, window: u16) -> Judgement {
        // PROTOCOL.md#rule-4, before rule 3.
        let counted = Seq(base.0.saturating_sub(1));
        if counted.above(self.floor()) > u64::from(window) {
            return Judgement::Stale;
        }
        let moved = self.move_floor(counted, skip);
        match self.window.classify(seq, window) {
            // PROTOCOL.md#rule-2.
            Verdict::Duplicate => Judgement::Duplicate(moved),
            // PROTOCOL.md#rule-3.
            Verdict::BeyondWindow => Judgement::BeyondWindow(moved),
            Verdict::New => Judgement::New(moved),
        }
    }

    /// Applies a journaled gap: seqs up to `to` are accounted for.
    pub fn apply_gap(&mut self, to: Seq) {
        self.window.advance_to(to);
    }

    /// Whether nothing of it waits: no ack, no record, no checkpoint.
    pub(super) fn is_at_rest(&self) -> bool {
        !self.touched && !self.recorded && self.pending == u32::MAX
    }

    /// Gives back memory that reordering needed for a while.
    pub(super) fn shrink(&mut self) {
        self.window.shrink();
    }

    fn move_floor(&mut self, to: Seq, skip: bool) -> FloorMove {
        let mut moved = FloorMove::default();
        if to <= self.floor() {
            return moved;
        }
        if !skip {
            moved.lost = self.window.missing_up_to(to);
        }
        let missing = self.window.advance_to(to);
        if skip {
            moved.abandoned = missing;
        }
        moved
    }
}
