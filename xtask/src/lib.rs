//! How the project is built, installed and run, without a `PostgreSQL` being there to compile this.
//!
//! The library is what tests and benchmarks share with the `cargo xtask` commands:
//!
//! | module | subject |
//! |---|---|
//! | [`pg`] | the supported major versions, and where each one's server is to be found |
//! | [`provision`] | getting onto the machine what is missing: Debian packages, other releases' roots, a server from source or from a wheel |
//! | [`install`] | a private, relocated `PostgreSQL` installation with the extension in it |
//! | [`server`] | private clusters: start, stop, crash, connect |
//! | [`account`] | the unprivileged user that servers run as |
//! | [`reference`] | the reference of the public functions, from their comments |
//! | [`scale`] | scripts that give the functions by their own names on several servers |
//! | [`paths`] | the places in the file system that all of this uses |
//! | [`shell`] | running other programs |
//!
//! A test asks for [`server::Server::start`] and gets a running server with the extension installed. Nothing is ever
//! written into the system's own `PostgreSQL`, and port 5432 is never used.

pub mod account;
pub mod install;
pub mod paths;
pub mod pg;
pub mod provision;
pub mod reference;
pub mod scale;
pub mod server;
pub mod shell;
mod spawn;
