//! Every way that data moves to another database or server: the commands of `docs/moving-data.md` are run as they stand
//! there, on a database with everything in it.

mod contents;
mod dumps;
mod page;
mod pg_upgrade;
mod servers;
