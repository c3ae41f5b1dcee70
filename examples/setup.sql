-- What the examples need, for a role that may create it.
CREATE EXTENSION IF NOT EXISTS pg_enough;
CREATE TABLE IF NOT EXISTS squares (n int, square bigint, attempts int);
SELECT enough.queue_create('squares', max_attempts => 3, if_not_exists => true);
