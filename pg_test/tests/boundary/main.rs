//! Where the extension meets the server: errors that pass through it.

mod errors;
