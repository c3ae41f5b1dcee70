-- Who may do what. PUBLIC may do what can't harm others: use queues as far as the privileges on their tables go, reach
-- entries of the cache, keys of rate limits and semaphores by their names. The rest is given by levels, each with all of those before
-- it: user, monitor, operator, admin. docs/privileges.md has the functions of each; a test compares.

-- SECURITY DEFINER, so that all privileges are the extension owner's to give, whichever role calls: then the same call takes them
-- away again, and pg_dump writes plain GRANTs. Callers are admins, by the REVOKE and the GRANT below.
CREATE FUNCTION enough._change_privileges(role regrole, what text, give boolean) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    levels CONSTANT text[] := '{user,monitor,operator,admin}';
    chosen CONSTANT int := array_position(levels, $2);
    grantee CONSTANT text := (SELECT quote_ident(r.rolname) FROM pg_roles AS r WHERE r.oid = $1);
    one record;
    statement text;
    schema_owner CONSTANT oid := (SELECT n.nspowner FROM pg_namespace AS n WHERE n.nspname = 'enough');
BEGIN
    IF $1 IS NULL OR $2 IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = format('argument "%s" must not be NULL', CASE WHEN $1 IS NULL THEN 'role' ELSE 'what' END),
            HINT = 'Pass the name of a role, and one of user, monitor, operator, admin.';
    ELSIF grantee IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = format('role "%s" does not exist', $1::oid), HINT = 'Pass the name of a role.';
    ELSIF chosen IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('invalid value for argument "what": "%s"', $2),
            HINT = 'It must be user, monitor, operator or admin.';
    END IF;
    -- One session at a time: the server fails with XX000 where two change the privileges of one object.
    LOCK TABLE enough.queue IN SHARE UPDATE EXCLUSIVE MODE;
    FOR one IN
        SELECT * FROM (VALUES
            (1, 'USAGE', 'SCHEMA enough'),
            (2, 'EXECUTE', 'FUNCTION enough.cache_stats()'),
            (2, 'EXECUTE', 'FUNCTION enough.rate_limit_stats(text)'),
            (2, 'EXECUTE', 'FUNCTION enough.semaphore_stats()'),
            (3, 'EXECUTE', 'FUNCTION enough.cache_clear()'),
            (3, 'EXECUTE', 'FUNCTION enough.cache_delete_prefix(text)'),
            (3, 'EXECUTE', 'FUNCTION enough.cache_keys(text, text, integer)'),
            (3, 'EXECUTE', 'FUNCTION enough.rate_limit_reset(text)'),
            (3, 'EXECUTE', 'FUNCTION enough.rate_limit_refund(text, integer, interval, integer, text, integer)'),
            (3, 'EXECUTE', 'FUNCTION enough.rate_limit_block(text, interval)'),
            (3, 'EXECUTE', 'FUNCTION enough.rate_limit_unblock(text)'),
            (3, 'SELECT, INSERT, UPDATE, DELETE', 'TABLE enough.rate_limit_policy'),
            (3, 'SELECT, INSERT, UPDATE, DELETE', 'TABLE enough.rate_limit_override'),
            (3, 'SELECT, UPDATE', 'TABLE enough.queue'),
            (4, 'INSERT, DELETE', 'TABLE enough.queue'),
            (4, 'SELECT, INSERT, DELETE', 'TABLE enough.queue_key'),
            (4, 'INSERT, DELETE', 'TABLE enough.topic_subscription'),
            (4, 'INSERT, DELETE', 'TABLE enough.space'),
            (4, 'SELECT, INSERT, UPDATE, DELETE', 'TABLE enough.kv_default'),
            -- What pg_dump reads and a restore writes.
            (4, 'SELECT, UPDATE', 'SEQUENCE enough.k_default_versions'),
            (4, 'CREATE', 'SCHEMA enough'),
            (4, 'EXECUTE', 'FUNCTION enough.grant_to(regrole, text)'),
            (4, 'EXECUTE', 'FUNCTION enough.revoke_from(regrole, text)')
        ) AS p (level, privileges, object)
        -- Its owner has all rights on the schema already.
        WHERE schema_owner <> $1 OR object <> 'SCHEMA enough' ORDER BY level
    LOOP
        statement := CASE
            WHEN give AND one.level <= chosen THEN
                format('GRANT %s ON %s TO %s%s', one.privileges, one.object, grantee,
                       CASE WHEN levels[chosen] = 'admin' THEN ' WITH GRANT OPTION' END)
            WHEN NOT give AND one.level >= chosen THEN
                format('REVOKE %s ON %s FROM %s', one.privileges, one.object, grantee)
            WHEN NOT give THEN
                -- An admin's right to pass it on; all others have none.
                format('REVOKE GRANT OPTION FOR %s ON %s FROM %s', one.privileges, one.object, grantee)
        END;
        CONTINUE WHEN statement IS NULL;
        FOR try IN 1..10 LOOP
            BEGIN
                EXECUTE statement;
                EXIT;
            EXCEPTION WHEN internal_error THEN
                -- A GRANT by hand of the same object, which the lock doesn't keep out.
                IF SQLERRM <> 'tuple concurrently updated' THEN
                    RAISE;
                ELSIF try = 10 THEN
                    RAISE EXCEPTION USING ERRCODE = 'serialization_failure',
                        MESSAGE = format('the privileges on %s were changed by other sessions at the same time', one.object),
                        HINT = 'Retry the transaction.';
                END IF;
            END;
        END LOOP;
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION enough._change_privileges(regrole, text, boolean) FROM PUBLIC;

CREATE FUNCTION enough.grant_to(role regrole, what text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM enough._change_privileges($1, $2, true);
END $$;
COMMENT ON FUNCTION enough.grant_to(regrole, text) IS
'Lets a role use the extension in this database, at a level: user, monitor, operator or admin; each includes those before it.
user: USAGE on the schema enough, which PUBLIC has unless it was revoked. monitor: statistics, those of all queues among them. operator: clears the cache, resets and refunds rate limits, blocks keys, sets policies, extends and releases what others hold of semaphores, pauses, resumes and alters all queues, and its maintain() works on all of them. admin: creates queues, restores dumps, and passes all of this on; the database''s owner is one, and the role that has created the extension. What a role may do with a queue''s messages is for queue_grant().
Returns nothing.
Fails with 22004 (NULL), 22023 (no such level), 42704 (no such role), 25006 (read-only), 42501 for a role that is no admin.';
REVOKE ALL ON FUNCTION enough.grant_to(regrole, text) FROM PUBLIC;

CREATE FUNCTION enough.revoke_from(role regrole, what text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM enough._change_privileges($1, $2, false);
END $$;
COMMENT ON FUNCTION enough.revoke_from(regrole, text) IS
'Takes a level of grant_to() from a role, and all levels above it; those before it stay: without operator, an admin is a monitor.
Returns nothing. What PUBLIC has every role has: to close the extension to all but its users, REVOKE USAGE ON SCHEMA enough FROM PUBLIC.
Fails with 22004 (NULL), 22023 (no such level), 42704 (no such role), 2BP01 where the role itself has passed on, by GRANT, what it loses, 25006 (read-only), 42501 for a role that is no admin.';
REVOKE ALL ON FUNCTION enough.revoke_from(regrole, text) FROM PUBLIC;

-- The database's owner needn't be a superuser, and then owns none of this. It is an admin as a member of
-- pg_database_owner: a role of its own name would stay behind in what pg_dump writes when it is dropped (up to 16), and is
-- another one where the dump is restored. What is granted here pg_dump takes for a part of the extension.
SELECT enough.grant_to('pg_database_owner', 'admin');
DO $$
DECLARE
    installer CONSTANT oid := '@extowner@'::pg_catalog.regrole;
BEGIN
    -- A role with CREATE on the database.
    IF NOT pg_catalog.pg_has_role(installer, 'pg_database_owner', 'USAGE') THEN
        PERFORM enough.grant_to(installer::pg_catalog.regrole, 'admin');
    END IF;
END $$;
