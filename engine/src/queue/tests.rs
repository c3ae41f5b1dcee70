//! Tests of the queue index.
//!
//! | file | subject |
//! |---|---|
//! | `check.rs` | walks a partition and proves that it is sound |
//! | `model.rs` | tables, transactions and sessions around one partition, in plain collections |
//! | `invariants.rs` | what must hold of each queue after each step |
//! | `refill.rs` | the model's scans of a table |
//! | `two_phase.rs` | the model's prepared transactions |
//! | `random.rs` | random histories of the model |
//! | `corrupt.rs` | memory with random words in it |
//! | `rules.rs` | the rules one by one |
//! | `groups.rs` | those of groups and limits |
//! | `lanes.rs` | those of groups with more than one lane |
//! | `rates.rs` | those of how often messages of one group are delivered |
//! | `whole.rs` | those of readers that ask for whole groups |
//! | `numbered.rs` | those of messages that stand in line by their numbers |
//! | `order.rs` | those of time: what is due first |
//! | `awaited.rs` | those of sessions that wait for a message's end |
//! | `ending.rs` | those of failing, purging and looking |
//! | `clock.rs` | those of a clock that is set back |
//! | `durations.rs` | those of waiting and running times |
//! | `pick.rs` | those of messages read by their numbers |
//! | `undecided.rs` | those of messages that prepared transactions have set aside |
//! | `used_up.rs` | those of messages that have been delivered as often as they may be |

mod awaited;
mod check;
mod clock;
mod corrupt;
mod durations;
mod ending;
mod groups;
mod invariants;
mod lanes;
mod model;
mod numbered;
mod order;
mod pick;
mod random;
mod rates;
mod refill;
mod rules;
mod two_phase;
mod undecided;
mod used_up;
mod whole;
