//! A number that changes with a memory layout, computed at compile time.
//!
//! Processes with different builds of the library may meet in one segment, so a changed layout needs a new layout
//! version. Each file that says what lies where in the words mixes its numbers into a `LAYOUT`, those of a structure are
//! mixed into one, and the extension compares the whole with what is recorded beside its layout version. A number that
//! a change of behaviour may change freely is none of them; `engine/tests/layout.rs` sees to it that each constant is
//! one or the other.

/// Mixes numbers into one that is as good as certain to change with any of them, their count or their order.
pub const fn of(numbers: &[u64]) -> u64 {
    // The 64-bit finaliser of MurmurHash3 (Appleby 2011) after each number.
    let mut mixed = numbers.len() as u64;
    let mut at = 0;
    while at < numbers.len() {
        mixed = mixed.rotate_left(5) ^ numbers[at];
        mixed = (mixed ^ mixed >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        mixed ^= mixed >> 33;
        at += 1;
    }
    mixed
}

/// The fingerprint of integer constants: `fingerprint![RECORD, QUEUE]`.
#[macro_export]
macro_rules! fingerprint {
    ($($number:expr),+ $(,)?) => {
        $crate::fingerprint::of(&[$($number as u64),+])
    };
}

/// The fingerprint of a field enum's numbers; a variant that isn't listed is a compile error.
#[macro_export]
macro_rules! fingerprint_of_fields {
    ($fields:ident { $($field:ident),+ $(,)? }) => {{
        #[allow(dead_code, reason = "it only has to compile: the match is exhaustive")]
        const fn all_are_listed(field: $fields) {
            match field {
                $($fields::$field)|+ => (),
            }
        }
        $crate::fingerprint![$($fields::$field),+]
    }};
}

/// The fingerprint of a `repr(C)` struct: its size, its alignment, and where its fields are; a field that isn't listed is
/// a compile error.
#[macro_export]
macro_rules! fingerprint_of_struct {
    ($structure:ident { $($field:ident),+ $(,)? }) => {{
        #[allow(dead_code, reason = "it only has to compile: the pattern is exhaustive")]
        fn all_are_listed($structure { $($field: _),+ }: &$structure) {}
        $crate::fingerprint![
            size_of::<$structure>(),
            align_of::<$structure>(),
            $(std::mem::offset_of!($structure, $field)),+
        ]
    }};
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn it_changes_with_each_number_their_order_and_their_count() {
        let before = of(&[1, 2, 3]);
        for other in [&[1, 2, 4][..], &[2, 1, 3], &[1, 2], &[1, 2, 3, 0], &[0, 1, 2, 3], &[]] {
            assert_ne!(before, of(other), "{other:?}");
        }
    }
}
