-- CREATE EXTENSION has made the schema already, as the control file says.

-- A database's owner who is no superuser and creates the extension gets the schema as it has the schema public: the role that owns
-- the database owns it. (By its name it would stay behind in what pg_dump writes when it is dropped.)
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace AS n
                 JOIN pg_catalog.pg_database AS d ON d.datdba OPERATOR(pg_catalog.=) n.nspowner
                 JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
                WHERE n.nspname OPERATOR(pg_catalog.=) 'enough' AND NOT r.rolsuper
                  AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
                  AND r.oid OPERATOR(pg_catalog.=) '@extowner@'::pg_catalog.regrole) THEN
        ALTER SCHEMA @extschema@ OWNER TO pg_database_owner;
    END IF;
END $$;

COMMENT ON SCHEMA @extschema@ IS 'message queue, cache and rate limiter of pg_enough';
GRANT USAGE ON SCHEMA @extschema@ TO PUBLIC;
