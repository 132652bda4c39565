//! The payloads of the queued messages: a ring of bytes in which each payload lies in one piece, freed in the order in
//! which they were taken.

/// A ring over the caller's bytes.
///
/// In use is `read..write`, or `read..` and `..write` once it has wrapped; wrapped, `write` stays below `read`, so
/// that the two cases can be told apart.
#[derive(Clone, Debug)]
pub(super) struct Payloads<B> {
    bytes: B,
    read: u32,
    write: u32,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Payloads<B> {
    pub(super) fn new(bytes: B) -> Self {
        Self { bytes, read: 0, write: 0 }
    }

    /// Bytes that it can hold when it is empty.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.as_ref().len().min(u32::MAX as usize)
    }

    /// Copies a payload in and returns where it starts; `None`, unchanged, when there is no room for it in one piece.
    pub(super) fn push(&mut self, payload: &[u8]) -> Option<u32> {
        let (read, write, len) = (self.read as usize, self.write as usize, payload.len());
        let wrapped = write < read;
        let start = if wrapped {
            (write + len < read).then_some(write)?
        } else if write + len <= self.capacity() {
            write
        } else {
            (len < read).then_some(0)?
        };
        self.bytes.as_mut()[start..start + len].copy_from_slice(payload);
        self.write = u32::try_from(start + len).ok()?;
        u32::try_from(start).ok()
    }

    pub(super) fn slice(&self, start: u32, len: u16) -> &[u8] {
        &self.bytes.as_ref()[start as usize..][..usize::from(len)]
    }

    /// Everything before the payload that starts at `oldest` is free; all when there is none.
    pub(super) fn release(&mut self, oldest: Option<u32>) {
        match oldest {
            Some(start) => self.read = start,
            None => (self.read, self.write) = (0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::Payloads;

    proptest! {
        /// Random pushes and releases: what is held stays intact, and an empty ring takes all that it has bytes for.
        #[test]
        fn payloads_stay_intact_until_they_are_released(
            capacity in 0..64usize,
            steps in prop::collection::vec((0..40usize, 0..3usize), 1..200),
        ) {
            let mut ring = Payloads::new(vec![0u8; capacity]);
            let mut held: VecDeque<(u32, Vec<u8>)> = VecDeque::new();
            for (n, (len, releases)) in (0u8..).zip(steps) {
                let payload = vec![n; len];
                match ring.push(&payload) {
                    Some(start) => held.push_back((start, payload)),
                    None => prop_assert!(!held.is_empty() || len > capacity),
                }
                for _ in 0..releases {
                    held.pop_front();
                    ring.release(held.front().map(|(start, _)| *start));
                }
                for (start, payload) in &held {
                    prop_assert_eq!(ring.slice(*start, u16::try_from(payload.len()).unwrap()), &payload[..]);
                }
            }
        }
    }
}
