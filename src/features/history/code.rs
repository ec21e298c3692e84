//! A value in 16 bits, as fine as its feature needs.

use crate::features::schema::Feature;

/// The code of no value.
pub(super) const MISSING: i16 = i16::MIN;

/// The largest code; its negative is the smallest.
const CODE_MAX: u64 = i16::MAX as u64;

/// Steps of one `noise`. What is smaller than `noise` means nothing, so a 64th of it loses nothing.
const STEPS: f64 = 64.0;

/// How values of one feature become 16-bit codes: a small floating-point format of its own.
///
/// A code is a sign and 15 bits of size, read as a float without sign: blocks of `2^bits` numbers, the
/// first two in steps of [`step`](Self::step), each later one in steps twice as wide as the one before.
/// `step` is a 64th of the feature's `noise`, and `bits` are as many as leave room for `min` and `max`.
/// So a code is off by at most half a step or one part in `2^(bits + 1)` of the value, whichever is more:
/// ratios with a noise of a hundredth are off by a 128th of that, and counts up to 1e9 by 0.05 % (`bits`
/// is 10). What lies beyond the last code becomes the last code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Code {
    step: f64,
    bits: u32,
}

impl Code {
    /// The finest code that covers a feature's range.
    pub(super) fn of(feature: &Feature) -> Self {
        let step = feature.noise / STEPS;
        let reach = feature.min.abs().max(feature.max.abs()) / step;
        // Fewer bits than 8 are needed by no range that a double of sensible noise has.
        let bits = (8..=14)
            .rev()
            .find(|bits| size(CODE_MAX as u32, *bits) >= reach);
        Self {
            step,
            bits: bits.unwrap_or(8),
        }
    }

    /// The code of a value; NaN is missing.
    pub(super) fn encode(self, value: f64) -> i16 {
        if value.is_nan() {
            return MISSING;
        }
        let steps = (value / self.step).abs();
        let first = 1_u64 << self.bits;
        let number = if steps < (2 * first) as f64 {
            whole(steps)
        } else {
            // An infinity has an exponent beyond every block, and ends as the last code.
            let exponent = (steps.to_bits() >> 52) as u32 - 1023;
            let block = u64::from(exponent - self.bits) + 1;
            let within = whole(steps / power(block - 1));
            // Rounded up beyond the block, it is the first number of the next.
            (block << self.bits).saturating_add(within.saturating_sub(first))
        };
        let code = number.min(CODE_MAX) as i16;
        if value < 0.0 { -code } else { code }
    }

    /// The value of a code; `None` if it is missing.
    pub(super) fn decode(self, code: i16) -> Option<f64> {
        if code == MISSING {
            return None;
        }
        let size = size(u32::from(code.unsigned_abs()), self.bits) * self.step;
        Some(if code < 0 { -size } else { size })
    }

    /// What one is worth in codes that have no bits but these; `None` where they are no whole numbers of one step.
    pub(super) fn step_below(self, bits: u16) -> Option<f64> {
        (u32::from(bits) >> self.bits == 0).then_some(self.step)
    }

    /// A value as it is remembered; `None` if it is missing.
    pub(super) fn remembered(self, value: f64) -> Option<f64> {
        self.decode(self.encode(value))
    }
}

/// The nearest whole number to one that is not negative; a half goes up. Unlike `f64::round` no call.
fn whole(steps: f64) -> u64 {
    (steps + 0.5) as u64
}

/// The size of a code, in steps.
fn size(number: u32, bits: u32) -> f64 {
    let first = 1_u32 << bits;
    if number < first {
        return f64::from(number);
    }
    let block = number >> bits;
    f64::from(first + (number & (first - 1))) * power(u64::from(block) - 1)
}

/// Two to this power, exactly.
fn power(exponent: u64) -> f64 {
    f64::from_bits((1023 + exponent.min(1023)) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Schema;

    #[test]
    fn every_value_of_every_built_in_feature_comes_back_within_its_precision() {
        for feature in Schema::built_in().features() {
            let code = Code::of(feature);
            let within = |value: f64| {
                let by_value = value.abs() / f64::from(1_u32 << (code.bits + 1));
                (feature.noise / 128.0).max(by_value) * 1.000_001
            };
            let mut last = f64::NEG_INFINITY;
            for i in 0..=20_000_u32 {
                // Every decade of both signs, and the bounds.
                let share = f64::from(i) / 10_000.0 - 1.0;
                let size = feature.noise / 1e4 * (1e20_f64).powf(share.abs());
                let value = (size * share.signum()).clamp(feature.min, feature.max);
                let back = code.remembered(value).unwrap();
                assert!(
                    (back - value).abs() <= within(value),
                    "{}: {value} became {back}",
                    feature.name
                );
                if share < 0.0 {
                    continue;
                }
                assert!(back >= last, "{}: order is lost at {value}", feature.name);
                last = back;
            }
            for bound in [feature.min, feature.max, 0.0] {
                let back = code.remembered(bound).unwrap();
                assert!((back - bound).abs() <= within(bound), "{}", feature.name);
            }
        }
    }

    #[test]
    fn a_ratio_is_kept_to_a_fraction_of_its_noise_and_a_count_as_it_is() {
        let schema = Schema::built_in();
        let error = |feature: &str, value: f64| {
            let code = Code::of(schema.feature(feature).unwrap());
            (code.remembered(value).unwrap() - value).abs()
        };
        assert!(error("cpu_used", 0.987_654_321) <= 0.02 / 128.0);
        assert!(error("disk_await_write", 0.084) <= 0.002 / 32.0);
        assert!(error("disk_await_write", 12.3) <= 12.3 / 2_048.0);
        for count in [0.0, 1.0, 7.0, 1000.0] {
            assert_eq!(error("oom_kills", count), 0.0, "{count}");
        }
    }

    #[test]
    fn every_code_survives_and_nothing_but_nan_is_missing() {
        for feature in Schema::built_in().features() {
            let code = Code::of(feature);
            for number in (-i16::MAX..=i16::MAX).filter(|number| *number != 0) {
                let value = code.decode(number).unwrap();
                assert_eq!(code.encode(value), number, "{} {value}", feature.name);
            }
            assert_eq!(code.encode(f64::NAN), MISSING);
            assert_eq!(code.decode(MISSING), None);
            assert_eq!(code.encode(f64::INFINITY), i16::MAX);
            assert_eq!(code.encode(f64::NEG_INFINITY), -i16::MAX);
            assert_eq!(code.encode(-0.0), 0);
        }
    }
}
