//! After a restart or a crash all names are free, and tokens go on growing.

use crate::common::{Waiter, acquire, taken, tokens};
use anyhow::{Result, ensure};
use enough_pg_test::check::{healthy, is_lost};
use enough_pg_test::server::{self, Database, backend};
use xtask::server::Shutdown;

#[test]
fn all_are_free_and_tokens_are_greater_than_before() -> Result<()> {
    for options in [server::options()?, server::options()?.preload("pg_enough")] {
        let mut server = server::start(&options)?;
        let database = Database::on(&server)?;
        let (mut last, name) = (0, database.name.clone());
        for how in [Some(Shutdown::Fast), Some(Shutdown::Immediate), None] {
            let database = Database::named(&server, &name);
            let mut client = database.client()?;
            // Many at once: the numbers run ahead of the clock as little as they can.
            let row = client.query_one(
                "SELECT max(enough.semaphore_acquire('s', 100, '1 hour')), count(*) FROM generate_series(1, 100)",
                &[],
            )?;
            let token: i64 = row.get(0);
            ensure!(token > last, "{token} after {last}");
            ensure!(acquire(&mut client, "'s'")?.is_none());
            last = token;
            if let Some(how) = how {
                server.restart(how)?;
            } else {
                // A process that is killed takes the others with it, holders and those who wait.
                let waiter = Waiter::start(&database, "'s', wait => '1 hour'")?;
                let mut victim = database.client()?;
                taken(&mut victim, "'t', ttl => '1 hour'")?;
                server.backend_kill9(backend(&mut victim)?)?;
                let error = waiter.end()?.1.expect_err("its session has ended");
                ensure!(is_lost(&error), "{error:?}");
                server.wait_until_up()?;
            }
            let mut client = Database::named(&server, &name).client()?;
            ensure!(tokens(&mut client, "s")?.is_empty() && tokens(&mut client, "t")?.is_empty());
            let token = taken(&mut client, "'s'")?;
            ensure!(token > last, "{token} after {last} and {how:?}");
            last = token;
            // For the next round.
            client.execute("SELECT enough.semaphore_release('s', $1)", &[&token])?;
        }
        healthy(&server.log(), true)?;
    }
    Ok(())
}
