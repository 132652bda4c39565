//! The hand-off of committed blocks to the lanes: a ring of the newest blocks, which all of them share, and the bell of each.
//!
//! The ring is a cache over the journal. The committer puts each block into it, and takes the oldest out for want of room,
//! whoever has not read them; what a lane does not find there it reads from the journal. Two things must hold: no block stays
//! unseen by a lane that sleeps, and the ring's bytes are bounded. Both rest on the order of these steps in several threads,
//! and on nothing else; so they stand alone here, and `tests/hand_off_model` runs this very file under every interleaving.
//!
//! A slot is a lock that nobody ever waits for: the committer and the lanes only try. A lane is inside for the time of a clone,
//! beside other lanes. The committer that meets one there leaves its new block out of the ring: a lane that the system has
//! stopped at that very place costs readings of the journal, but no time and no memory. A lane that meets the committer there
//! looks for a block that is just leaving. As nobody waits, nobody has to be woken either: a slot costs no system call.
//! (`arc-swap` has cheaper looks, but a store visits every thread that ever looked, and drops the old value there.)
//!
//! Correct is all of this without any order: a block carries its offsets, and a lane takes none but the one it asked for.

use std::ops::Range;
use std::sync::Arc;

use super::RwLock;
use super::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// What the committer and the lanes share.
struct Ring<T> {
    /// The block with the number n is in the slot n modulo their count, if anywhere.
    slots: Box<[RwLock<Option<Kept<T>>>]>,
    /// The number of the block that is put in next.
    next: AtomicU64,
    /// The offset after the newest block, whether the ring had room for that or not.
    end: AtomicU64,
}

/// A block in its slot.
struct Kept<T> {
    number: u64,
    span: Range<u64>,
    bytes: u64,
    block: T,
}

/// Where a slot lies, seen from the block that is looked for.
enum Look<T> {
    Here(T),
    TooOld,
    TooNew,
}

/// The committer's end. There is one for each ring, so that no other thread changes what it has just looked at.
pub(super) struct Filler<T> {
    ring: Arc<Ring<T>>,
    /// The bell of each reader: whether it sleeps, or is about to.
    asleep: Vec<Arc<AtomicBool>>,
    /// The number of the oldest block in the ring.
    oldest: u64,
    /// The number of the next block.
    next: u64,
    /// Bytes of the blocks in the ring.
    bytes: u64,
    bytes_max: u64,
}

/// One lane takes blocks from this end.
pub(super) struct Reader<T> {
    ring: Arc<Ring<T>>,
    asleep: Arc<AtomicBool>,
    /// It has said that it sleeps, and not yet that it is up again.
    has_lain_down: bool,
    /// The number after the last block that it took: as a rule the one that it looks for next.
    near: u64,
}

impl<T: Clone> Filler<T> {
    /// An empty ring of so many slots, in which blocks have so many bytes at most, or are one block. What is below the offset
    /// `end` is in the journal alone.
    pub(super) fn new(slots: usize, bytes_max: u64, end: u64) -> Self {
        let slots = (0..slots).map(|_| RwLock::new(None)).collect();
        let ring = Ring { slots, next: AtomicU64::new(0), end: AtomicU64::new(end) };
        Self { ring: Arc::new(ring), asleep: Vec::new(), oldest: 0, next: 0, bytes: 0, bytes_max }
    }

    /// One more lane's end. The bells are counted in the order of these calls, from 0.
    pub(super) fn reader(&mut self) -> Reader<T> {
        let asleep = Arc::new(AtomicBool::new(false));
        self.asleep.push(Arc::clone(&asleep));
        Reader { ring: Arc::clone(&self.ring), asleep, has_lain_down: false, near: 0 }
    }

    /// The committer's step, for a block of `bytes` bytes with the entries of `span`, which can be read from the journal.
    ///
    /// `wake` ends a reader's sleep, or the next one when it is not asleep yet, and must not wait. The block is in the ring
    /// before its end can be seen, so that nobody reads it from the journal in between; and its end can be seen before
    /// anybody's bell is looked at, so that one of the two always sees what the other did.
    pub(super) fn publish(&mut self, span: Range<u64>, bytes: u64, block: T, wake: impl Fn(usize)) {
        let end = span.end;
        if self.make_room(bytes) {
            self.put(span, bytes, block);
        }
        self.ring.end.store(end, SeqCst);
        for (reader, asleep) in self.asleep.iter().enumerate() {
            // A look costs a lane at work nothing; a swap would take the line away from it each time.
            if asleep.load(SeqCst) && asleep.swap(false, SeqCst) {
                wake(reader);
            }
        }
    }

    /// Takes out the oldest blocks until there is a slot and the bytes are free; no, when somebody looks at the oldest.
    fn make_room(&mut self, bytes: u64) -> bool {
        while self.next > self.oldest {
            let has_slot = self.next - self.oldest < self.ring.slots.len() as u64;
            if has_slot && self.bytes + bytes <= self.bytes_max {
                break;
            }
            if !self.take_oldest() {
                return false;
            }
        }
        true
    }

    /// Takes out all blocks; when somebody looks at one, that and those after it stay.
    pub(super) fn empty(&mut self) {
        while self.next > self.oldest && self.take_oldest() {}
    }

    /// No, when somebody looks at it.
    fn take_oldest(&mut self) -> bool {
        let Ok(mut slot) = self.ring.slot(self.oldest).try_write() else { return false };
        let old = slot.take();
        // Nobody meets the committer in the slot for as long as it takes to free a block.
        drop(slot);
        self.bytes -= old.map_or(0, |old| old.bytes);
        self.oldest += 1;
        true
    }

    fn put(&mut self, span: Range<u64>, bytes: u64, block: T) {
        let number = self.next;
        let Ok(mut slot) = self.ring.slot(number).try_write() else { return };
        *slot = Some(Kept { number, span, bytes, block });
        drop(slot);
        self.bytes += bytes;
        self.next += 1;
        self.ring.next.store(self.next, SeqCst);
    }
}

impl<T: Clone> Ring<T> {
    fn slot(&self, number: u64) -> &RwLock<Option<Kept<T>>> {
        let slot = number % self.slots.len() as u64;
        &self.slots[usize::try_from(slot).unwrap_or_default()]
    }

    /// The block that holds the entry `at`, with its number: first the one with the number `near` is looked at, then half of
    /// those that are left, and so on.
    fn find(&self, at: u64, near: u64) -> Option<(u64, T)> {
        let mut high = self.next.load(SeqCst);
        let mut low = high.saturating_sub(self.slots.len() as u64);
        let mut number = near;
        while low < high {
            if !(low..high).contains(&number) {
                number = low + (high - low) / 2;
            }
            match self.look(number, at) {
                Look::Here(block) => return Some((number, block)),
                Look::TooOld => low = number + 1,
                Look::TooNew => high = number,
            }
        }
        None
    }

    fn look(&self, number: u64, at: u64) -> Look<T> {
        // Blocks leave in the order of their numbers: where one has left, or is just leaving, or another has come since, all
        // that were before it have left too.
        let Ok(slot) = self.slot(number).try_read() else { return Look::TooOld };
        match &*slot {
            Some(kept) if kept.number == number && at < kept.span.start => Look::TooNew,
            Some(kept) if kept.number == number && at < kept.span.end => Look::Here(kept.block.clone()),
            _ => Look::TooOld,
        }
    }
}

impl<T: Clone> Reader<T> {
    /// The lane's step: the block that holds the entry `at`; or, when the ring does not have it, the offset below which the
    /// lane must read from the journal. When that is not above `at`, it has seen all and may lie down.
    pub(super) fn take(&mut self, at: u64) -> Result<T, u64> {
        let end = self.ring.end.load(SeqCst);
        if at >= end {
            return Err(end);
        }
        let (number, block) = self.ring.find(at, self.near).ok_or(end)?;
        self.near = number + 1;
        Ok(block)
    }

    /// The lane's step before it sleeps, when it has seen all below `at`. Only after `true` may it sleep: it is woken, once,
    /// for the next block. After `false` there is one already.
    ///
    /// The end is looked at after the bell is ready to be rung: whoever published before the bell was ready has not woken
    /// anybody.
    pub(super) fn lie_down(&mut self, at: u64) -> bool {
        self.has_lain_down = true;
        self.asleep.store(true, SeqCst);
        self.ring.end.load(SeqCst) <= at
    }

    /// The lane's step after it has slept, or not slept in spite of having lain down; says whether it had. It is not woken any
    /// more until it lies down again, but for a wake-up that is on its way.
    pub(super) fn get_up(&mut self) -> bool {
        let had = std::mem::take(&mut self.has_lain_down);
        if had {
            self.asleep.store(false, SeqCst);
        }
        had
    }
}
