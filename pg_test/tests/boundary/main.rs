//! Where the extension meets the server: errors that pass through it, rows that others hold, tables that are nearly as it
//! made them, settings, locks, clients that are gone.

mod again;
mod clients;
mod common;
mod concurrently;
mod errors;
mod locked;
mod locks;
mod own_tables;
mod settings;
mod straight;
