//! Eight producers and eight consumers, and two sessions that prepare transactions, while sessions are killed, terminated or cancelled at random, the server is
//! restarted, clients are killed, and queues are altered and dropped.
//!
//! No committed message may be lost, none may be delivered under two live leases, and none after its delete has
//! committed or while a prepared transaction has ended it. Where a connection is lost during a COMMIT nobody knows how that ended, and nothing is claimed of it.
//!
//! Beside them topics, workers in SQL, keys, reads of several queues, notifications, whole groups, dead letters and tables as sources go through the same,
//! and results, keys with a window, dead letters that go back, pages, and key-value spaces.
//!
//! `ENOUGH_CHAOS_SECONDS` says how long each test goes on.

mod consumer;
mod fates;
mod ledger;
mod others;
mod producer;
mod run;
mod session;
mod two_phase;
mod upheaval;
mod values;
