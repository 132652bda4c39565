//! Where sessions stand: in chunks of a fixed size, so that a table that grows copies none of them.

use crate::dialect::duragram::session::Session;
use crate::limits;

/// A vector whose elements stay where they are.
#[derive(Debug, Default)]
pub(super) struct Chunks(Vec<Vec<Option<Session>>>);

impl Chunks {
    /// The number of places, free ones included.
    pub(super) fn len(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * limits::SESSIONS_PER_CHUNK + last.len())
    }

    pub(super) fn at(&self, index: u32) -> Option<&Session> {
        let index = index as usize;
        self.0.get(index / limits::SESSIONS_PER_CHUNK)?.get(index % limits::SESSIONS_PER_CHUNK)?.as_ref()
    }

    fn place(&mut self, index: u32) -> &mut Option<Session> {
        let index = index as usize;
        &mut self.0[index / limits::SESSIONS_PER_CHUNK][index % limits::SESSIONS_PER_CHUNK]
    }

    pub(super) fn at_mut(&mut self, index: u32) -> Option<&mut Session> {
        self.place(index).as_mut()
    }

    pub(super) fn put(&mut self, index: u32, session: Session) {
        *self.place(index) = Some(session);
    }

    pub(super) fn take(&mut self, index: u32) -> Option<Session> {
        self.place(index).take()
    }

    /// Adds a place behind the others for a session; returns its index.
    pub(super) fn push(&mut self, session: Session) -> usize {
        let index = self.len();
        if index.is_multiple_of(limits::SESSIONS_PER_CHUNK) {
            self.0.push(Vec::with_capacity(limits::SESSIONS_PER_CHUNK));
        }
        if let Some(last) = self.0.last_mut() {
            last.push(Some(session));
        }
        index
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.0.iter().flatten().flatten()
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let chunk = |chunk: &Vec<Option<Session>>| size_of_val(chunk) + chunk.capacity() * size_of::<Option<Session>>();
        self.0.iter().map(chunk).sum()
    }
}
