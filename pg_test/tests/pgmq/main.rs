//! pgmq's SQL interface (`compat/pgmq`). What is expected is what pgmq 1.13.0 answers, but where a test says otherwise.

mod common;
mod finishing;
mod grouped;
mod moving;
mod notify;
mod queues;
mod reading;
mod search_path;
mod sending;
mod signatures;
mod supabase;
mod topics;
mod transactions;
mod views;
