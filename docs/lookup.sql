-- For auth.query of Poolhouse: finds one user's secret, for a role that is no superuser. To be run by a superuser, in the
-- database that auth.query_database names. Replace asker by auth.query_user.
CREATE SCHEMA poolhouse;
CREATE FUNCTION poolhouse.find_user(wanted text, OUT name text, OUT secret text) RETURNS SETOF record
    LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT rolname, rolpassword FROM pg_catalog.pg_authid
        WHERE rolname = wanted AND rolcanlogin AND NOT rolsuper AND NOT rolreplication
            AND (rolvaliduntil IS NULL OR rolvaliduntil > pg_catalog.now())
    $$;
REVOKE ALL ON FUNCTION poolhouse.find_user(text) FROM PUBLIC;
GRANT USAGE ON SCHEMA poolhouse TO asker;
GRANT EXECUTE ON FUNCTION poolhouse.find_user(text) TO asker;
