-- CREATE EXTENSION has made the schema already, as the control file says.

COMMENT ON SCHEMA @extschema@ IS 'message queue, cache and rate limiter of pg_enough';
GRANT USAGE ON SCHEMA @extschema@ TO PUBLIC;
