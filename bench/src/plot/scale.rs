//! An axis: linear from zero, or logarithmic.

use super::picture::short;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use std::ops::Range;

/// An axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Scale {
    /// From 0 (or the least value where that is negative) to the largest of `values`.
    pub(super) fn linear(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = ends(values);
        let (low, high) = (low.min(0.0), high.max(0.0));
        // A little room above; an axis without length would divide by 0.
        Self { low, high: if high > low { high + (high - low) * 0.05 } else { low + 1.0 }, logarithmic: false }
    }

    /// From the least to the largest of `values` above 0.
    pub(super) fn logarithmic(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = ends(values.filter(|value| *value > 0.0));
        if low.is_finite() && high > low {
            Self { low, high, logarithmic: true }
        } else {
            let low = if low.is_finite() { low } else { 1.0 };
            Self { low: low / 2.0, high: low * 2.0, logarithmic: true }
        }
    }

    /// Shares, from 0 to 1.
    pub(super) fn shares() -> Self {
        Self { low: 0.0, high: 1.0, logarithmic: false }
    }

    /// Whether `value` has a place on it.
    pub(super) fn holds(&self, value: f64) -> bool {
        value.is_finite() && (!self.logarithmic || value > 0.0)
    }

    /// Round values on it: at most `most` of them, or the powers of ten.
    fn marks(&self, most: usize) -> Vec<f64> {
        let steps = |decade: f64| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powf(decade));
        if self.logarithmic {
            let decades = (self.low.log10().floor() as i32)..=(self.high.log10().ceil() as i32);
            let inside = |value: &f64| (self.low * 0.999..=self.high * 1.001).contains(value);
            let tens = decades.clone().map(|decade| 10_f64.powi(decade)).filter(inside);
            let all = decades.flat_map(|decade| steps(f64::from(decade))).filter(inside);
            let all: Vec<f64> = all.collect();
            return if all.len() <= most { all } else { tens.collect() };
        }
        let (length, most) = (self.high - self.low, f64::from(most.max(1) as u32));
        let decade = (length / most).log10().floor();
        let candidates = steps(decade).into_iter().chain(steps(decade + 1.0));
        let step = candidates.into_iter().find(|step| length / step <= most).unwrap_or(length);
        let first = (self.low / step).ceil() as i32;
        let last = (self.high / step + 1e-9).floor() as i32;
        (first..=last).map(|mark| f64::from(mark) * step).collect()
    }
}

/// The least and the largest; infinite where there is none.
fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        self.marks(hint.max_num_points())
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Scale {
    fn format_ext(&self, value: &f64) -> String {
        short(*value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round() {
        let scale = Scale::linear([3.0, 87.0].into_iter());
        assert_eq!(scale.marks(10), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0]);
        assert_eq!(scale.marks(5), [0.0, 20.0, 40.0, 60.0, 80.0]);
        let scale = Scale::logarithmic([0.0, 1_000.0, 1e6].into_iter());
        assert_eq!(scale.marks(6), [1e3, 1e4, 1e5, 1e6]);
        let few: Vec<String> = Scale::logarithmic([1.0, 20.0].into_iter()).marks(8).iter().map(|m| short(*m)).collect();
        assert_eq!(few, ["1", "2", "5", "10", "20"]);
    }

    #[test]
    fn values_lie_where_they_belong() {
        let linear = Scale::shares();
        assert_eq!([0.0, 0.5, 1.0].map(|value| linear.map(&value, (0, 100))), [0, 50, 100]);
        let log = Scale::logarithmic([1.0, 100.0].into_iter());
        assert_eq!([1.0, 10.0, 100.0].map(|value| log.map(&value, (100, 0))), [100, 50, 0]);
        assert!(!log.holds(0.0) && linear.holds(0.0) && !linear.holds(f64::NAN));
        // One value, or none, still makes an axis.
        for scale in [Scale::logarithmic(std::iter::once(5.0)), Scale::logarithmic(std::iter::empty())] {
            assert!(scale.high > scale.low && scale.low > 0.0);
        }
        let nothing = Scale::linear(std::iter::once(0.0));
        assert!(nothing.high > nothing.low);
    }
}
