//! How long a message rests whose delivery has failed.

use enough_engine::queue::Options;

/// The rest that a message gets after its `attempts`-th delivery failed, in microseconds: doubling with each, capped, and
/// a tenth more or less, so that messages that failed together don't come back together.
pub(super) fn backoff(options: &Options, attempts: u32, seed: u64) -> i64 {
    let doubled = i128::from(options.retry_backoff) << attempts.saturating_sub(1).min(62);
    let capped = doubled.min(i128::from(options.retry_backoff_max.max(0)));
    // 0 to 2047 of a seed that differs from message to message.
    let scatter = i128::from(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53);
    let rest = capped * (9 * 2047 + 2 * scatter) / (10 * 2047);
    i64::try_from(rest.min(i128::from(options.retry_backoff_max.max(0)))).unwrap_or(i64::MAX)
}
