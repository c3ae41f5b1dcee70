//! The functions by their own names on several servers, as `docs/scaling.md` has it.

mod citus;
mod plproxy;
