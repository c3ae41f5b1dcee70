//! Where the extension meets the server: errors that pass through it, rows that others hold.

mod common;
mod errors;
mod locked;
mod locks;
mod settings;
