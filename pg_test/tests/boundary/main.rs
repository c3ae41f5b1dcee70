//! Where the extension meets the server: errors that pass through it, rows that others hold.

mod errors;
mod locked;
