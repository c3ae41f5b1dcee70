//! The fixed window: it opens at a key's first request and lasts a period; or it opens with the calendar's hour, day or
//! the like, which the limit knows.

use super::limit::{Algorithm, Decision, Limit, State, elapsed};

/// When the window closes that is open at `now`, and what was consumed in it; none where nothing was.
///
/// The calendar's window may have been found before the clock was read for the decision. So a state of the next
/// window is met by a limit of the one before: the newer one counts.
#[inline]
fn open(limit: &Limit, opened: i64, used: u32, now: i64) -> Option<(i64, u32)> {
    let closes = opened.saturating_add_unsigned(limit.period);
    if limit.algorithm == Algorithm::Calendar {
        let own = limit.opened.saturating_add_unsigned(limit.period);
        return (opened >= limit.opened).then_some((if opened >= own { closes } else { own }, used));
    }
    (elapsed(opened, now) < limit.period).then_some((closes, used))
}

#[inline]
pub(super) fn available(limit: &Limit, opened: i64, used: u32, now: i64) -> u32 {
    limit.capacity.saturating_sub(open(limit, opened, used, now).map_or(0, |(_, used)| used))
}

#[inline]
pub(super) fn wait(limit: &Limit, opened: i64, used: u32, now: i64, cost: u32) -> u64 {
    match open(limit, opened, used, now) {
        Some((closes, used)) if cost > limit.capacity.saturating_sub(used) => elapsed(now, closes),
        _ => 0,
    }
}

#[inline]
pub(super) fn consume(limit: &Limit, state: Option<&State>, now: i64, cost: u32) -> State {
    if let Some(&State::Fixed { opened, used }) = state
        && let Some((_, used)) = open(limit, opened, used, now)
        && used > 0
    {
        return State::Fixed { opened, used: used.saturating_add(cost) };
    }
    State::Fixed { opened: if limit.algorithm == Algorithm::Calendar { limit.opened } else { now }, used: cost }
}

/// What [`Limit::decide`] does for a request of all or nothing, with the state that a grant leaves.
#[inline(always)]
pub(super) fn decide(limit: &Limit, opened: i64, used: u32, now: i64, cost: u32) -> (Decision, Option<(i64, u32)>) {
    let since = elapsed(opened, now);
    let is_open = since < limit.period && used > 0;
    let (opened, since, used) = if is_open { (opened, since, used) } else { (now, 0, 0) };
    let left = limit.period - since;
    let available = limit.capacity.saturating_sub(used);
    if let Some(remaining) = available.checked_sub(cost) {
        let decision = Decision { allowed: true, granted: cost, remaining, retry_after: Some(0), reset_after: left };
        return (decision, Some((opened, used.saturating_add(cost))));
    }
    let retry_after = (cost <= limit.capacity).then_some(left);
    let reset_after = if is_open { left } else { 0 };
    (Decision { allowed: false, granted: 0, remaining: available, retry_after, reset_after }, None)
}
