//! Seeded names and times.

use std::ops::RangeInclusive;
use std::time::Duration;

use foreshock_core::node::Uid;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The letters and digits that Kubernetes makes names of: no vowels, nothing that reads as another.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A stream of random names and times.
#[derive(Clone, Debug)]
pub(super) struct Random(ChaCha8Rng);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A UID in the form of the API server's.
    pub(super) fn uid(&mut self) -> Uid {
        let (high, low) = (self.0.next_u64(), self.0.next_u64());
        let high = high & !0xf000 | 0x4000;
        let low = low & !(0b11 << 62) | (0b10 << 62);
        Uid::new(format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        ))
    }

    /// The last part of a generated name.
    pub(super) fn suffix(&mut self, length: usize) -> String {
        (0..length)
            .map(|_| {
                let n = usize::try_from(self.0.next_u64() % ALPHABET.len() as u64).unwrap_or(0);
                char::from(ALPHABET[n])
            })
            .collect()
    }

    /// A whole number of milliseconds within the range.
    pub(super) fn within(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let milliseconds = |time: &Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (low, high) = (milliseconds(range.start()), milliseconds(range.end()));
        let spread = high.saturating_sub(low).saturating_add(1);
        Duration::from_millis(low + self.0.next_u64() % spread)
    }
}
