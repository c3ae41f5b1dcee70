//! Random histories of the model: small partitions, several queues that compete for them.

use super::model::{SECOND, World};
use crate::queue::Decision;
use crate::words::allocate;
use proptest::prelude::*;

/// A step of a history. The first number says which queue, `which` which of those that are there.
#[derive(Debug, Clone)]
enum Step {
    /// Rows of transactions that stay open.
    Insert(u8, u8, Option<i64>, u64),
    Commit(u8, u8),
    Announce(u8, u8),
    /// Rows of transactions that commit and tell the index at once.
    Send(u8, u8, Option<i64>, u64, u8),
    /// Delayed rows that come due, then one that is sent after that.
    Due(u8, u8),
    Purge(u8, u8),
    Read(u8, u8),
    Extend(u8, u8, bool, i64),
    GiveBack(u8, u8, i64),
    PutBack(u8, u8),
    StartDelete(u8, u8),
    StartDeleteAny(u8, u8),
    Delete(u8, u8),
    EndDelete(u8, u8, bool),
    Prepare(u8, u8),
    Decide(u8, u8, u8),
    Expire(u8),
    Tick(i64),
    SetBack(i64),
    Wait(u8),
    ActWoken(u8, u8),
    Cancel(u8, u8, bool),
    Pause(u8, bool),
    LimitFlight(u8, u32),
    LimitAttempts(u8, u32),
    LimitGroups(u8, u32),
    LimitGroupRate(u8, u32),
    StartBurial(u8, u8),
    BuryByRow(u8, u8),
    Distrust(u8),
    /// Another row with the number of one.
    Reuse(u8, u8, u8, Option<i64>, bool),
    Reconcile(u8),
    StartRefill(u8),
    TakeOver(u8),
    Snapshot(u8),
    Scan(u8, u8),
    EndRefill(u8),
    Refill(u8),
    Detach(u8, u8),
    Attach(u8),
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    let q = 0..3_u8;
    let which = any::<u8>;
    let priority = || prop_oneof![3 => Just(0_u8), 1 => 0..10_u8];
    let delay = || prop_oneof![3 => Just(None), 1 => (-2..40_i64).prop_map(|delay| Some(delay * SECOND))];
    // Several queues may use the same key.
    let group = || prop_oneof![2 => Just(0_u64), 3 => 1..4_u64];
    let seconds = |from: i64, to: i64| (from..to).prop_map(|seconds| seconds * SECOND);
    prop_oneof![
        4 => (q.clone(), priority(), delay(), group()).prop_map(|(q, p, d, g)| Insert(q, p, d, g)),
        4 => (q.clone(), which()).prop_map(|(q, w)| Commit(q, w)),
        4 => (q.clone(), which()).prop_map(|(q, w)| Announce(q, w)),
        8 => (q.clone(), priority(), delay(), group(), 1..60_u8).prop_map(|(q, p, d, g, n)| Send(q, p, d, g, n)),
        3 => (q.clone(), 1..30_u8).prop_map(|(q, n)| Due(q, n)),
        1 => (q.clone(), which()).prop_map(|(q, w)| Purge(q, w)),
        8 => (q.clone(), prop_oneof![1..4_u8, 1..100_u8]).prop_map(|(q, n)| Read(q, n)),
        2 => (q.clone(), which(), any::<bool>(), seconds(0, 50)).prop_map(|(q, w, f, s)| Extend(q, w, f, s)),
        2 => (q.clone(), which(), seconds(0, 5)).prop_map(|(q, w, s)| GiveBack(q, w, s)),
        2 => (q.clone(), which()).prop_map(|(q, w)| PutBack(q, w)),
        3 => (q.clone(), which()).prop_map(|(q, w)| StartDelete(q, w)),
        2 => (q.clone(), which()).prop_map(|(q, w)| StartDeleteAny(q, w)),
        1 => (q.clone(), which()).prop_map(|(q, w)| Delete(q, w)),
        4 => (q.clone(), which(), any::<bool>()).prop_map(|(q, w, c)| EndDelete(q, w, c)),
        2 => (q.clone(), 0..12_u8).prop_map(|(q, n)| Prepare(q, n)),
        2 => (q.clone(), which(), 0..3_u8).prop_map(|(q, w, d)| Decide(q, w, d)),
        3 => prop_oneof![1..5_u8, Just(255)].prop_map(Expire),
        4 => prop_oneof![1..SECOND, seconds(0, 40)].prop_map(Tick),
        1 => prop_oneof![1..20_000_i64, seconds(0, 40), seconds(3600, 3601)].prop_map(SetBack),
        5 => q.clone().prop_map(Wait),
        5 => (q.clone(), which()).prop_map(|(q, w)| ActWoken(q, w)),
        1 => (q.clone(), which(), any::<bool>()).prop_map(|(q, w, f)| Cancel(q, w, f)),
        1 => (q.clone(), any::<bool>()).prop_map(|(q, p)| Pause(q, p)),
        1 => (q.clone(), 0..5_u32).prop_map(|(q, n)| LimitFlight(q, n)),
        1 => (q.clone(), 1..4_u32).prop_map(|(q, n)| LimitAttempts(q, n)),
        2 => (q.clone(), 1..5_u32).prop_map(|(q, n)| LimitGroups(q, n)),
        2 => (q.clone(), 0..5_u32).prop_map(|(q, n)| LimitGroupRate(q, n)),
        3 => (q.clone(), 1..9_u8).prop_map(|(q, n)| StartBurial(q, n)),
        2 => (q.clone(), which()).prop_map(|(q, w)| BuryByRow(q, w)),
        1 => q.clone().prop_map(Distrust),
        2 => (q.clone(), which(), priority(), delay(), any::<bool>()).prop_map(|(q, w, p, d, a)| Reuse(q, w, p, d, a)),
        1 => q.clone().prop_map(Reconcile),
        3 => q.clone().prop_map(StartRefill),
        1 => q.clone().prop_map(TakeOver),
        3 => q.clone().prop_map(Snapshot),
        4 => (q.clone(), any::<u8>()).prop_map(|(q, n)| Scan(q, n)),
        4 => q.clone().prop_map(EndRefill),
        3 => q.clone().prop_map(Refill),
        1 => (q.clone(), any::<u8>()).prop_map(|(q, n)| Detach(q, n)),
        1 => q.prop_map(Attach),
    ]
}

fn run(world: &mut World<'_>, step: &Step) {
    let count = world.queues.len();
    let at = |q: u8| usize::from(q) % count;
    match *step {
        Step::Insert(q, priority, delay, group) => world.insert(at(q), priority, delay, group),
        Step::Commit(q, which) => {
            world.commit(at(q), which);
            world.queues[at(q)].uncertain += 1;
        }
        Step::Announce(q, which) => world.announce(at(q), which),
        Step::Send(q, priority, delay, group, rows) => {
            for _ in 0..rows {
                world.insert(at(q), priority, delay, group);
                world.commit(at(q), (world.queues[at(q)].open.len() - 1) as u8);
                world.announce(at(q), (world.queues[at(q)].unannounced.len() - 1) as u8);
            }
        }
        Step::Due(q, rows) => {
            run(world, &Step::Send(q, 0, Some(SECOND), 0, rows));
            world.tick(SECOND);
            run(world, &Step::Send(q, 0, None, 0, 1));
        }
        Step::Purge(q, which) => world.purge(at(q), which),
        Step::Read(q, want) => {
            world.read(at(q), usize::from(want));
        }
        Step::Extend(q, which, fenced, by) => world.extend(at(q), which, fenced, by),
        Step::GiveBack(q, which, delay) => world.release_with_backoff(at(q), which, delay),
        Step::PutBack(q, which) => world.undo_lease(at(q), which),
        Step::StartDelete(q, which) => world.start_delete(at(q), which),
        Step::StartDeleteAny(q, which) => world.start_delete_any(at(q), which),
        Step::Delete(q, which) => world.delete(at(q), which),
        Step::EndDelete(q, which, commit) => world.end_delete(at(q), which, commit),
        Step::Prepare(q, count) => world.prepare(at(q), usize::from(count)),
        Step::Decide(q, which, how) => {
            let how = [Decision::Committed, Decision::RolledBack, Decision::Either][usize::from(how)];
            world.decide(at(q), which, how);
        }
        Step::Expire(limit) => world.expire(usize::from(limit)),
        Step::Tick(by) => world.tick(by),
        Step::SetBack(by) => world.set_back(by),
        Step::Wait(q) => {
            let process = world.process();
            world.act(at(q), process);
        }
        Step::ActWoken(q, which) => world.act_woken(at(q), which),
        Step::Cancel(q, which, woken) => world.cancel(at(q), which, woken),
        Step::Pause(q, paused) => world.pause(at(q), paused),
        Step::LimitFlight(q, most) => world.limit_flight(at(q), most),
        Step::LimitAttempts(q, most) => world.limit_attempts(at(q), most),
        Step::LimitGroups(q, most) => world.limit_groups(at(q), most),
        Step::LimitGroupRate(q, most) => world.limit_group_rate(at(q), most),
        Step::StartBurial(q, count) => world.start_burial(at(q), usize::from(count)),
        Step::BuryByRow(q, which) => world.bury_by_row(at(q), which),
        Step::Distrust(q) => world.invalidate_watermark(at(q)),
        Step::Reuse(q, which, priority, delay, announced) => world.reuse(at(q), which, priority, delay, announced),
        Step::Reconcile(q) => world.reconcile(at(q)),
        Step::StartRefill(q) => {
            let process = world.process();
            world.start_refill(at(q), process, false);
        }
        Step::TakeOver(q) => world.take_over(at(q)),
        Step::Snapshot(q) => world.snapshot(at(q)),
        Step::Scan(q, rows) => world.scan(at(q), usize::from(rows)),
        Step::EndRefill(q) => world.end_refill(at(q)),
        Step::Refill(q) => {
            world.refill(at(q));
        }
        Step::Detach(q, step) => world.detach(at(q), usize::from(step)),
        Step::Attach(q) => world.attach(at(q)),
    }
}

fn config() -> ProptestConfig {
    // Steps are independent of each other, so shrinking by halves of the history finds short ones soon.
    ProptestConfig { failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn nothing_is_lost_or_doubled(
        (queues, words) in (1..4_usize).prop_flat_map(|queues| (Just(queues), queues * 1024 - 592..queues * 1024 + 508)),
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let words = allocate(words);
        let mut world = World::new(&words, queues);
        for step in &steps {
            run(&mut world, step);
            world.check();
        }
        world.drain();
    }
}

/// Where the memory has room for the counts of all groups, their rates hold to the step.
fn of_groups() -> impl Strategy<Value = Step> {
    use Step::*;
    let which = any::<u8>;
    prop_oneof![
        3 => (1..4_u64, 1..9_u8).prop_map(|(group, rows)| Send(0, 0, None, group, rows)),
        1 => (1..4_u64, -2..40_i64).prop_map(|(group, delay)| Send(0, 0, Some(delay * SECOND), group, 1)),
        6 => (1..9_u8).prop_map(|want| Read(0, want)),
        2 => (which(), 0..5_i64).prop_map(|(which, delay)| GiveBack(0, which, delay * SECOND)),
        1 => which().prop_map(|which| PutBack(0, which)),
        4 => which().prop_map(|which| StartDelete(0, which)),
        5 => which().prop_map(|which| EndDelete(0, which, true)),
        2 => (0..4_u8).prop_map(|count| Prepare(0, count)),
        2 => (which(), 0..3_u8).prop_map(|(which, how)| Decide(0, which, how)),
        1 => which().prop_map(|which| Purge(0, which)),
        6 => prop_oneof![1..SECOND, (0..9_i64).prop_map(|seconds| seconds * SECOND)].prop_map(Tick),
        2 => Just(Expire(255)),
        2 => Just(Wait(0)),
        2 => which().prop_map(|which| ActWoken(0, which)),
        1 => (1..4_u32).prop_map(|most| LimitGroups(0, most)),
        1 => (0..6_u32).prop_map(|most| LimitGroupRate(0, most)),
        1 => Just(Refill(0)),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn rates_of_groups_hold_in_each_trailing_period(steps in proptest::collection::vec(of_groups(), 1..120)) {
        let words = allocate(8000);
        let mut world = World::new(&words, 1);
        world.roomy = true;
        world.limit_attempts(0, 1000);
        world.limit_group_rate(0, 3);
        for step in &steps {
            run(&mut world, step);
            world.check();
        }
        world.drain();
    }
}

fn replay(queues: usize, words: usize, steps: &[Step]) {
    let words = allocate(words);
    let mut world = World::new(&words, queues);
    for step in steps {
        run(&mut world, step);
        world.check();
    }
    world.drain();
}

#[test]
fn a_message_waits_for_an_earlier_one_that_was_sent_while_the_table_is_read() {
    use Step::*;
    replay(1, 1032, &[Wait(0), Send(0, 0, Some(0), 3, 1), Send(0, 0, None, 3, 12), Scan(0, 1), Wait(0)]);
}

#[test]
fn a_message_waits_for_an_earlier_one_behind_one_that_is_being_deleted() {
    use Step::*;
    let (delayed, group) = (Send(0, 0, Some(SECOND), 0, 23), Send(0, 0, None, 1, 20));
    replay(1, 432, &[StartRefill(0), delayed, group, StartDeleteAny(0, 23), Refill(0), Read(0, 1)]);
}

#[test]
fn a_message_that_a_reader_hands_back_gives_way_to_an_earlier_one() {
    use Step::*;
    let (group, others) = (Send(0, 1, None, 1, 17), Send(0, 0, None, 0, 21));
    let steps = [Wait(0), group, others, Scan(0, 2), Wait(0), EndRefill(0), Refill(0), PutBack(0, 30)];
    replay(1, 432, &steps);
}

#[test]
fn a_message_that_others_overtook_is_counted_once() {
    use Step::*;
    let (delayed, last) = (Send(0, 0, Some(SECOND), 3, 24), Send(0, 0, None, 3, 1));
    replay(1, 881, &[Wait(0), Snapshot(0), Send(0, 0, None, 0, 10), delayed, last, Refill(0)]);
}

#[test]
fn an_earlier_message_gets_its_room_from_the_one_that_overtook_it() {
    use Step::*;
    let steps = [
        Send(0, 0, Some(0), 0, 31),
        Insert(0, 0, None, 0),
        Wait(0),
        Commit(0, 0),
        Send(0, 0, Some(10 * SECOND), 1, 43),
        Scan(0, 2),
        EndRefill(0),
        Send(0, 0, None, 0, 41),
        Read(0, 1),
        Send(0, 0, Some(0), 1, 56),
        Read(0, 1),
        StartDeleteAny(0, 216),
        Send(0, 1, None, 1, 44),
        Read(0, 1),
    ];
    replay(1, 881, &steps);
    // Nothing but the one group is in the index, and all of it waits for what isn't.
    replay(1, 432, &[Wait(0), Send(0, 0, None, 1, 38), Scan(0, 2), Read(0, 1), EndRefill(0), Refill(0)]);
    replay(1, 432, &[Wait(0), Send(0, 0, Some(0), 1, 38), Scan(0, 39)]);
    replay(1, 432, &[Send(0, 0, Some(0), 2, 1), Send(0, 0, Some(-SECOND), 2, 37)]);
}

#[test]
fn messages_that_came_late_are_not_forgotten_when_the_first_of_them_is_finished() {
    use Step::*;
    let first = [Wait(0), Insert(0, 0, None, 1), Insert(0, 0, None, 1)];
    replay(1, 432, &[&first[..], &[Send(0, 0, None, 1, 2), Refill(0), StartDeleteAny(0, 144)]].concat());
}

#[test]
fn a_refill_brings_nothing_before_what_is_due_and_was_left_out_since_it_began() {
    use Step::*;
    replay(1, 942, &[Wait(0), Due(0, 14), Refill(0), StartRefill(0), Due(0, 22), Scan(0, 2)]);
}

#[test]
fn a_group_remembers_the_deliveries_of_a_follower_that_comes_into_line_again() {
    use Step::*;
    let steps = [Send(0, 0, None, 7, 1), Send(0, 0, None, 7, 1), LimitAttempts(0, 1), Read(0, 1), GiveBack(0, 0, 0)];
    replay(1, 1284, &[&steps[..], &[Read(0, 1), LimitAttempts(0, 2)]].concat());
}

#[test]
fn what_is_in_line_again_keeps_its_deliveries_where_its_row_is_compared() {
    use Step::*;
    let steps = [Due(0, 2), LimitAttempts(0, 1), Refill(0), Read(0, 1), GiveBack(0, 0, 0), LimitAttempts(0, 2)];
    replay(1, 432, &[&steps[..], &[Reconcile(0)]].concat());
}

#[test]
fn a_message_that_was_due_is_not_dropped_before_one_behind_it() {
    use Step::*;
    let steps = [Due(0, 16), Send(0, 8, None, 0, 39), Refill(0), Insert(0, 2, None, 0), Due(0, 11), Commit(0, 0)];
    replay(2, 1797, &steps);
}

#[test]
fn one_of_a_group_that_is_in_line_again_comes_first_where_its_record_had_no_room_for_its_time() {
    use Step::*;
    let steps = [Send(0, 2, Some(9 * SECOND), 2, 1), Tick(9_500_000), Refill(0), Wait(0), Tick(32 * SECOND)];
    replay(2, 1456, &[&steps[..], &[LimitAttempts(0, 1), Send(0, 0, None, 0, 1), LimitAttempts(0, 2)]].concat());
}

#[test]
fn a_message_that_its_own_scan_brings_into_line_is_not_behind_itself() {
    use Step::*;
    let steps = [Wait(0), Send(0, 0, None, 1, 2), Refill(0), LimitAttempts(0, 2), SetBack(3600 * SECOND), Read(0, 1)];
    let more = [Tick(30 * SECOND), Wait(0), Wait(0), Tick(30 * SECOND), Scan(0, 2)];
    replay(1, 432, &[&steps[..], &more].concat());
}

#[test]
fn who_waits_for_the_flight_is_woken_where_a_lease_is_ended_that_was_the_last() {
    use Step::*;
    let steps = [Send(0, 0, None, 0, 2), LimitFlight(0, 1), Refill(0), Wait(0), LimitAttempts(0, 1), Wait(0)];
    replay(1, 432, &[&steps[..], &[Extend(0, 0, false, 0)]].concat());
}

#[test]
fn one_that_is_parked_gives_way_to_an_earlier_one_that_a_refill_brings() {
    use Step::*;
    let lanes = [LimitGroups(0, 2), Send(0, 0, None, 3, 4), Refill(0), Read(0, 1), Read(0, 1)];
    let vanished = [Purge(0, 2), GiveBack(0, 0, SECOND), Wait(0), Send(0, 0, Some(0), 3, 1)];
    replay(1, 8000, &[&lanes[..], &vanished, &[LimitGroups(0, 1), Wait(0), Refill(0)]].concat());
}

#[test]
fn one_that_is_the_head_no_more_gives_way_to_an_earlier_one_all_the_same() {
    use Step::*;
    let lanes = [LimitGroups(0, 2), Send(0, 0, None, 1, 4), Refill(0), Read(0, 1), Read(0, 1), GiveBack(0, 1, SECOND)];
    let vanished = [Purge(0, 1), Purge(0, 1), Read(0, 1), StartDelete(0, 0), EndDelete(0, 0, true)];
    let delayed = [Send(0, 0, Some(SECOND), 1, 1), Tick(SECOND), Expire(255), Read(0, 3)];
    replay(1, 8000, &[&lanes[..], &vanished, &delayed].concat());
}

#[test]
fn one_whose_burial_is_rolled_back_stands_in_line_again_where_more_deliveries_are_allowed_meanwhile() {
    use Step::*;
    for group in [0, 1] {
        let delivered = [LimitAttempts(0, 1), Send(0, 0, None, group, 2), Refill(0), Read(0, 1), GiveBack(0, 0, 0)];
        let buried = [StartBurial(0, 1), LimitAttempts(0, 2), EndDelete(0, 0, false), LimitAttempts(0, 2), Read(0, 2)];
        replay(1, 8000, &[&delivered[..], &buried].concat());
    }
}
