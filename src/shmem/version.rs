//! The version of the layout, and what forces it up when the layout changes.
//!
//! Sessions keep the library that they loaded, so after an update old and new builds meet in one segment until the
//! server restarts. A library that finds another layout version leaves the segment alone.

use super::layout::{Header, PartitionHead, RegionHead, Registry};
use enough_engine::{fingerprint, fingerprint_of_struct};

/// Each layout version with the fingerprint of its layout; the last is this library's. A row of a released version is
/// never edited: a change gets a new row with the next version. The row of a version that is not released yet may be.
const LAYOUTS: [(u64, u64); 1] = [(3, 0xc663_dfd4_171b_83fd)];

/// Raised whenever anything in the segment changes its place or its meaning. A meaning that changes without a place (the
/// unit of a time, say) doesn't change the fingerprint: then it is raised by hand.
pub(super) const LAYOUT_VERSION: u64 = LAYOUTS[LAYOUTS.len() - 1].0;

/// Fails to compile where the layout of this build, in which the capabilities' partitions have these layouts, isn't the one
/// that is recorded.
pub const fn check(capabilities: &[u64]) {
    let fingerprint = fingerprint![
        fingerprint_of_struct!(Header { magic, layout, nonce, bytes, secret, created_at, sizes, regions, told }),
        fingerprint_of_struct!(RegionHead { offset, partitions, words, tranche }),
        fingerprint_of_struct!(PartitionHead { lock, version, resets }),
        fingerprint_of_struct!(Registry { magic, layout, handle, nonce }),
        enough_engine::fingerprint::of(capabilities),
    ];
    let mut row = 1;
    while row < LAYOUTS.len() {
        assert!(LAYOUTS[row - 1].0 < LAYOUTS[row].0, "a layout version is greater than the one before it");
        row += 1;
    }
    let message = message(fingerprint);
    let Ok(message) = std::str::from_utf8(&message) else { panic!("the message is ASCII") };
    assert!(fingerprint == LAYOUTS[LAYOUTS.len() - 1].1, "{}", message);
}

/// What the compiler says where the layout has changed: with the number to record.
const fn message(fingerprint: u64) -> [u8; 144] {
    let mut text = *b"the layout of the segment has changed: give LAYOUTS in src/shmem/version.rs a row with the next \
                      version and this fingerprint: 0x0123456789abcdef";
    let mut digit = 0;
    while digit < 16 {
        text[text.len() - 16 + digit] = b"0123456789abcdef"[(fingerprint >> (60 - 4 * digit) & 15) as usize];
        digit += 1;
    }
    text
}
