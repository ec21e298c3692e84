//! Seeded randomness and stochastic processes whose results are the same on every platform.
//!
//! Only IEEE-exact arithmetic and `libm` are used: the standard library's `exp`, `ln` and `sin` are
//! those of the platform and may differ in the last bit, which a long simulation amplifies.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A stream of random numbers: one seed gives independent streams by number.
#[derive(Clone, Debug)]
pub(super) struct Random(ChaCha8Rng);

impl Random {
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// Uniform in `0.0..1.0`.
    pub(super) fn unit(&mut self) -> f64 {
        // 53 bits: every value is exact.
        (self.0.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0
    }

    /// Uniform in `low..high`.
    pub(super) fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in the logarithm, in `low..high`; both positive.
    pub(super) fn log_range(&mut self, low: f64, high: f64) -> f64 {
        let (low, high) = (libm::log(low), libm::log(high));
        libm::exp(self.range(low, high))
    }

    /// Whole number in `low..=high`.
    pub(super) fn whole(&mut self, low: u64, high: u64) -> u64 {
        low + (self.unit() * (high - low + 1) as f64) as u64
    }

    /// True with this probability.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// One of a non-empty list.
    pub(super) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.whole(0, list.len() as u64 - 1) as usize]
    }

    /// Mean 0, deviation 1, within ±3.5: the sum of four uniform numbers.
    ///
    /// The short tails are wanted: a healthy Node should not get a six-sigma minute once a year
    /// only because somebody simulates many of them.
    pub(super) fn normal(&mut self) -> f64 {
        let bits = self.0.next_u64();
        let sum =
            (bits & 0xffff) + ((bits >> 16) & 0xffff) + ((bits >> 32) & 0xffff) + (bits >> 48);
        // Mean 4 × 65535 / 2, deviation 65536 × sqrt(4 / 12).
        (sum as f64 - 131_070.0) / 37_837.227
    }

    /// How many events of this expected number happen; at most one above the expectation.
    pub(super) fn events(&mut self, expected: f64) -> f64 {
        if expected <= 0.0 {
            return 0.0;
        }
        let whole = expected as u64 as f64;
        whole + f64::from(u8::from(self.unit() < expected - whole))
    }

    /// A waiting time with this mean.
    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * libm::log(1.0 - self.unit())
    }
}

/// Exact discretisation of relaxation with one time constant over one tick.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relax {
    keep: f64,
    kick: f64,
}

impl Relax {
    pub(super) fn new(time_constant: f64, tick: f64) -> Self {
        let keep = libm::exp(-tick / time_constant);
        Self {
            keep,
            kick: libm::sqrt(1.0 - keep * keep),
        }
    }

    /// One step towards a target.
    pub(super) fn towards(self, value: f64, target: f64) -> f64 {
        target + (value - target) * self.keep
    }

    /// One step of an Ornstein–Uhlenbeck process of mean 0 and deviation 1.
    pub(super) fn wander(self, value: f64, random: &mut Random) -> f64 {
        value * self.keep + self.kick * random.normal()
    }
}

/// The relaxations that the physics uses, for one tick length in seconds.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    pub(super) tick: f64,
    pub(super) s10: Relax,
    pub(super) s30: Relax,
    pub(super) m1: Relax,
    pub(super) m5: Relax,
    pub(super) m15: Relax,
    pub(super) h1: Relax,
    pub(super) h6: Relax,
}

impl Pace {
    pub(super) fn new(tick: f64) -> Self {
        Self {
            tick,
            s10: Relax::new(10.0, tick),
            s30: Relax::new(30.0, tick),
            m1: Relax::new(60.0, tick),
            m5: Relax::new(300.0, tick),
            m15: Relax::new(900.0, tick),
            h1: Relax::new(3600.0, tick),
            h6: Relax::new(21_600.0, tick),
        }
    }
}

/// Rises smoothly from 0 at `x <= 0` to 1 at `x >= 1`.
pub(super) fn smoothstep(x: f64) -> f64 {
    let x = x.clamp(0.0, 1.0);
    x * x * (3.0 - 2.0 * x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wandering_value_has_unit_deviation_at_every_tick_length() {
        for tick in [1.0, 5.0, 15.0, 60.0] {
            let mut random = Random::new(7, 1);
            let relax = Relax::new(300.0, tick);
            let mut x = 0.0;
            let (mut sum, mut square) = (0.0, 0.0);
            let n = 200_000;
            for _ in 0..n {
                x = relax.wander(x, &mut random);
                sum += x;
                square += x * x;
            }
            let mean = sum / f64::from(n);
            let deviation = (square / f64::from(n) - mean * mean).sqrt();
            assert!(mean.abs() < 0.2, "tick {tick}: mean {mean}");
            assert!((deviation - 1.0).abs() < 0.1, "tick {tick}: {deviation}");
        }
    }

    #[test]
    fn events_keep_their_expectation() {
        let mut random = Random::new(3, 0);
        let n: f64 = (0..100_000).map(|_| random.events(1.3)).sum();
        assert!((n / 100_000.0 - 1.3).abs() < 0.01, "{n}");
    }

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let first = |seed, stream| Random::new(seed, stream).unit();
        assert_eq!(first(1, 0), first(1, 0));
        assert_ne!(first(1, 0), first(1, 1));
        assert_ne!(first(1, 0), first(2, 0));
    }
}
