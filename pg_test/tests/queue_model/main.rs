//! Random histories of a queue, on a real server and in a model of what is promised, compared after each step.
//!
//! Sessions send, read, finish, extend, wait, commit and roll back at random; the model (`model.rs`) says of each answer
//! whether it keeps the promises. `ENOUGH_MODEL_SECONDS` says how long each test goes on; a failing history prints its
//! seed and all that was done, and `ENOUGH_MODEL_SEED` does that one alone. What depends on the clock may differ in a
//! replay. With `ENOUGH_MODEL_WAITING` sessions also wait for messages; what such a history finds may be the model's own
//! mistake.
//!
//! | file | subject |
//! |---|---|
//! | `model.rs` | what a queue holds, and what its calls may answer |
//! | `message.rs` | one message, and when it may or must be delivered |
//! | `endings.rs` | how deliveries end, in the model |
//! | `limits.rs` | how many may be delivered |
//! | `history.rs` | the calls, on the server and in the model |
//! | `calls.rs` | further ones: finishing, failing, the queue at large |
//! | `steps.rs` | which call comes next |
//! | `session.rs` | a connection in a thread of its own |
//! | `run.rs` | the tests: many histories one after the other |

mod calls;
mod endings;
mod history;
mod limits;
mod message;
mod model;
mod run;
mod session;
mod steps;
