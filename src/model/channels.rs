//! Sets of channels, and how people write them.

use std::ops::RangeInclusive;
use std::sync::Arc;

/// A set of channels as 65,536 bits. A clone shares them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelSet(Arc<[u64; 1024]>);

impl ChannelSet {
    /// The set of these channels.
    pub fn of(channels: impl IntoIterator<Item = u16>) -> Self {
        let mut bits = [0; 1024];
        for channel in channels {
            bits[usize::from(channel / 64)] |= 1 << (channel % 64);
        }
        Self(Arc::new(bits))
    }

    /// Whether a channel is in the set.
    pub fn contains(&self, channel: u16) -> bool {
        self.0[usize::from(channel / 64)] >> (channel % 64) & 1 == 1
    }
}

/// One channel or a range of them, such as `7` or `10-19`; one that ends before it begins is empty.
pub fn parse_channels(text: &str) -> Option<RangeInclusive<u16>> {
    let bound = |part: &str| part.trim().parse::<u16>().ok();
    match text.split_once('-') {
        Some((from, to)) => Some(bound(from)?..=bound(to)?),
        None => bound(text).map(|one| one..=one),
    }
}
