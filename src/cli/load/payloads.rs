//! What the datagrams of a load carry: made once, so that sending costs one copy and the checksum.

/// Different payloads: enough that no two neighbours are alike, few enough to stay in the processor's cache.
const VARIANTS: usize = 64;

/// The seq decides which of the payloads a datagram carries.
#[derive(Debug)]
pub(super) struct Payloads {
    bytes: Box<[u8]>,
    len: usize,
    batch: bool,
}

impl Payloads {
    /// Bytes of a datagram's payload that holds `batch` records of `size` bytes. One record is sent as it is.
    pub(super) fn len_of(size: usize, batch: usize) -> usize {
        if batch == 1 { size } else { batch * (2 + size) }
    }

    /// Records of random bytes. `None` when a batch's record has no room in its length of 16 bits.
    pub(super) fn new(size: usize, batch: usize, mut random: impl FnMut(&mut [u8])) -> Option<Self> {
        let len = Self::len_of(size, batch);
        let mut bytes = vec![0; len * VARIANTS].into_boxed_slice();
        random(&mut bytes);
        if batch > 1 {
            let prefix = u16::try_from(size).ok()?.to_le_bytes();
            for record in bytes.chunks_exact_mut(2 + size) {
                record[..2].copy_from_slice(&prefix);
            }
        }
        Some(Self { bytes, len, batch: batch > 1 })
    }

    /// The payload of a datagram; the same for every transmission of it.
    pub(super) fn payload(&self, seq: u64) -> &[u8] {
        #[allow(clippy::cast_possible_truncation)] // below VARIANTS
        let variant = (seq % VARIANTS as u64) as usize;
        &self.bytes[variant * self.len..][..self.len]
    }

    /// Whether each payload is a batch of records.
    pub(super) fn is_batch(&self) -> bool {
        self.batch
    }
}

#[cfg(test)]
mod tests {
    use duragram_proto::codec::Records;

    use super::*;

    fn counting(bytes: &mut [u8]) {
        bytes.iter_mut().zip((1..=251u8).cycle()).for_each(|(byte, n)| *byte = n);
    }

    #[test]
    fn a_batch_is_a_run_of_as_many_records_as_were_asked_for() {
        let payloads = Payloads::new(300, 5, counting).unwrap();
        for seq in 0..200 {
            let lens: Vec<_> = Records::new(payloads.payload(seq)).map(<[u8]>::len).collect();
            assert_eq!(lens, [300; 5]);
        }
        assert_eq!(payloads.payload(0).len(), 5 * 302);
        assert!(payloads.is_batch());
    }

    #[test]
    fn one_record_is_the_whole_payload_and_neighbours_differ() {
        let payloads = Payloads::new(100, 1, counting).unwrap();
        assert!(!payloads.is_batch());
        for seq in 1..200 {
            assert_eq!(payloads.payload(seq).len(), 100);
            assert_ne!(payloads.payload(seq), payloads.payload(seq + 1));
        }
    }

    #[test]
    fn empty_records_and_records_too_long_for_a_batch() {
        assert!(Payloads::new(0, 1, counting).unwrap().payload(7).is_empty());
        assert_eq!(Payloads::new(0, 3, counting).unwrap().payload(7), [0; 6]);
        assert!(Payloads::new(65_536, 2, counting).is_none());
    }
}
