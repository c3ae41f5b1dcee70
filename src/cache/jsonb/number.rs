//! Whole numbers, both ways: counters change under a lock.
//!
//! A `jsonb` that is a number is an array of one, marked as a scalar, whose child is a `numeric` with its 4-byte length
//! word. A `numeric` is a header and digits in base 10,000, most significant first, without trailing zeros; the header
//! has a short and a long form (the server's `utils/adt/numeric.c`). Numbers of 64 bits always fit the short one.

use super::{IS_END, LENGTH, ONE_SCALAR, TYPE, TYPE_NUMERIC, word};
use std::num::IntErrorKind;

/// Bytes before the numeric, and of its length word and its header.
const PREFIX: usize = 8;
const LENGTH_WORD: usize = 4;
const HEADER: usize = 2;

const SHORT: u16 = 0x8000;
const SHORT_NEGATIVE: u16 = 0x2000;
const SHORT_WEIGHT_NEGATIVE: u16 = 0x0040;
const SHORT_WEIGHT: u16 = 0x003F;
const FORM: u16 = 0xC000;
const LONG_NEGATIVE: u16 = 0x4000;

const BASE: u64 = 10_000;

/// Longest encoded number.
pub const LONGEST: usize = PREFIX + LENGTH_WORD + HEADER + 5 * 2;

/// An encoded number.
#[derive(Debug, Clone, Copy)]
pub struct Encoded {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Encoded {
    /// The `jsonb`'s bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// A number's `jsonb`, byte for byte as the server makes it.
pub fn encode(number: i64) -> Encoded {
    let mut rest = number.unsigned_abs();
    let mut digits = [0_u16; 5];
    let mut count: usize = 0;
    while rest > 0 {
        digits.rotate_right(1);
        digits[0] = (rest % BASE) as u16;
        rest /= BASE;
        count += 1;
    }
    let weight = count.saturating_sub(1) as u16;
    let kept = digits.iter().take(count).rposition(|&digit| digit != 0).map_or(0, |last| last + 1);
    let sign = if number < 0 { SHORT_NEGATIVE } else { 0 };
    let numeric = LENGTH_WORD + HEADER + kept * 2;
    let length_word = if cfg!(target_endian = "little") { (numeric as u32) << 2 } else { numeric as u32 };
    let mut encoded = Encoded { bytes: [0; LONGEST], len: PREFIX + numeric };
    let words = [ONE_SCALAR, TYPE_NUMERIC | IS_END | numeric as u32, length_word].map(u32::to_ne_bytes);
    let halves = std::iter::once(SHORT | sign | weight).chain(digits.into_iter().take(kept)).map(u16::to_ne_bytes);
    let bytes = words.into_iter().flatten().chain(halves.flatten());
    encoded.bytes.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    encoded
}

fn half(bytes: &[u8], index: usize) -> Option<u16> {
    bytes.get(index * 2..)?.first_chunk::<2>().map(|half| u16::from_ne_bytes(*half))
}

/// The whole number that a `jsonb` is: `InvalidDigit` where it is no number or not a whole one, an overflow where it has
/// more than 64 bits.
pub fn decode(bytes: &[u8]) -> Result<i64, IntErrorKind> {
    let child = word(bytes, 1).filter(|child| child & TYPE == TYPE_NUMERIC);
    if word(bytes, 0) != Some(ONE_SCALAR) {
        return Err(IntErrorKind::InvalidDigit);
    }
    let length = (child.ok_or(IntErrorKind::InvalidDigit)? & LENGTH) as usize;
    let numeric = bytes.get(PREFIX + LENGTH_WORD..PREFIX + length).ok_or(IntErrorKind::InvalidDigit)?;
    let header = half(numeric, 0).ok_or(IntErrorKind::InvalidDigit)?;
    let (negative, weight, digits) = match header & FORM {
        SHORT => {
            let weight = i32::from(header & SHORT_WEIGHT);
            let weight = if header & SHORT_WEIGHT_NEGATIVE == 0 { weight } else { weight - 64 };
            (header & SHORT_NEGATIVE != 0, weight, numeric.get(HEADER..))
        }
        // Neither infinite nor not a number, which a jsonb can't hold anyway.
        form if form != FORM => {
            let weight = half(numeric, 1).map_or(0, |weight| i32::from(weight as i16));
            (form == LONG_NEGATIVE, weight, numeric.get(HEADER + 2..))
        }
        _ => return Err(IntErrorKind::InvalidDigit),
    };
    whole(negative, weight, digits.unwrap_or_default())
}

/// Puts digits together, of which the first counts `BASE` to the power of `weight`.
fn whole(negative: bool, weight: i32, digits: &[u8]) -> Result<i64, IntErrorKind> {
    let overflow = if negative { IntErrorKind::NegOverflow } else { IntErrorKind::PosOverflow };
    let count = digits.len() / 2;
    if count == 0 {
        return Ok(0);
    }
    let places = usize::try_from(weight + 1).map_err(|_| IntErrorKind::InvalidDigit)?;
    if count > places {
        return Err(IntErrorKind::InvalidDigit);
    }
    if places > 5 {
        return Err(overflow);
    }
    let mut number = 0_i128;
    for index in 0..places {
        number = number * i128::from(BASE) + i128::from(half(digits, index).unwrap_or(0));
    }
    i64::try_from(if negative { -number } else { number }).map_err(|_| overflow)
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn numbers_survive_the_way_there_and_back() {
        let mut number: i64 = 1;
        for step in 0..4000_i64 {
            for number in [number, -number, number / 10_000 * 10_000, step, -step, i64::MAX - step, i64::MIN + step] {
                assert_eq!(decode(encode(number).bytes()), Ok(number));
            }
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step) >> (step % 60);
            number = number.wrapping_abs().max(1);
        }
    }

    #[test]
    fn what_is_no_whole_number_is_refused() {
        let number = encode(1_234_567);
        for len in 0..number.bytes().len() - 2 {
            let cut = &number.bytes()[..len];
            assert!(decode(cut).is_err(), "{len} bytes");
        }
        assert!(decode(&[0xff; 40]).is_err());
    }
}
