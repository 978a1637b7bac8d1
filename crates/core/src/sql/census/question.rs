//! What is asked of a server for a census. Everything is named with its schema, so that nothing of the search path comes
//! between. Works on PostgreSQL 14 and later, for any user.

use super::assumed;

/// Most functions in one answer.
pub const FUNCTIONS_PAGE: usize = 500;

/// What goes before the questions and after them, so that all answers tell of one moment.
pub const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; \
    SET LOCAL search_path = pg_catalog; SET LOCAL statement_timeout = 0";
/// Goes after the last question.
pub const END: &str = "COMMIT";

/// One text that is another one when anything that a census tells of may have changed: number and hash of the rows, by
/// their oids and the transactions that wrote them. Some milliseconds for a thousand tables.
pub const STAMP: &str = "\
WITH temporary AS (SELECT oid FROM pg_catalog.pg_namespace WHERE pg_catalog.starts_with(nspname, 'pg_temp_'))
SELECT pg_catalog.string_agg(part, ',' ORDER BY part) FROM (
SELECT 'function:' || pg_catalog.count(*) || ':' || coalesce(pg_catalog.sum(pg_catalog.hashint8(
  (oid::pg_catalog.int8 << 32) | xmin::pg_catalog.text::pg_catalog.int8)::pg_catalog.int8), 0) AS part
 FROM pg_catalog.pg_proc WHERE oid >= 16384 AND pronamespace NOT IN (SELECT oid FROM temporary)
UNION ALL SELECT 'reference:' || pg_catalog.count(*) || ':' || coalesce(pg_catalog.sum(
  pg_catalog.hashint8((objid::pg_catalog.int8 << 32) | refobjid::pg_catalog.int8)::pg_catalog.int8
  + pg_catalog.hashint8(xmin::pg_catalog.text::pg_catalog.int8)), 0)
 FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND refobjid >= 16384
UNION ALL SELECT kind || ':' || pg_catalog.count(*) || ':' || coalesce(pg_catalog.sum(pg_catalog.hashint8(
  (id::pg_catalog.int8 << 32) | at::pg_catalog.text::pg_catalog.int8)::pg_catalog.int8), 0)
 FROM (SELECT 'rule' AS kind, oid AS id, xmin AS at FROM pg_catalog.pg_rewrite WHERE oid >= 16384
  UNION ALL SELECT 'default', oid, xmin FROM pg_catalog.pg_attrdef
  UNION ALL SELECT 'constraint', oid, xmin FROM pg_catalog.pg_constraint WHERE conbin IS NOT NULL
  UNION ALL SELECT 'policy', oid, xmin FROM pg_catalog.pg_policy
  UNION ALL SELECT 'trigger', oid, xmin FROM pg_catalog.pg_trigger WHERE NOT tgisinternal
  UNION ALL SELECT 'operator', oid, xmin FROM pg_catalog.pg_operator WHERE oid >= 16384
  UNION ALL SELECT 'cast', oid, xmin FROM pg_catalog.pg_cast WHERE oid >= 16384
  UNION ALL SELECT 'alone', oid, xmin FROM pg_catalog.pg_class
   WHERE (relpersistence = 'u' OR relkind = 'S') AND oid >= 16384
  UNION ALL SELECT 'domain', oid, xmin FROM pg_catalog.pg_type WHERE typtype = 'd' AND oid >= 16384
 ) all_kinds GROUP BY kind) parts";

/// One text that is another one when sessions of the database may begin with other settings than before.
pub const DEFAULTS_STAMP: &str = "\
SELECT pg_catalog.count(*) || ':' || coalesce(pg_catalog.sum(pg_catalog.hashint8(
 (setrole::pg_catalog.int8 << 32) | xmin::pg_catalog.text::pg_catalog.int8)::pg_catalog.int8 + setdatabase::pg_catalog.int8), 0)
FROM pg_catalog.pg_db_role_setting WHERE setdatabase = 0 OR setdatabase = (SELECT oid FROM pg_catalog.pg_database
 WHERE datname = pg_catalog.current_database())";

/// Three kinds of rows: the one of [`DEFAULTS_STAMP`]; a row of name and oid for each of these roles that there is, since one
/// that is dropped and made anew is another; and when the server process that answers has read its configuration.
pub fn before_login<'u>(users: impl Iterator<Item = &'u str>) -> String {
    let names: Vec<_> = users.map(|name| format!("E'{}'", name.replace('\\', "\\\\").replace('\'', "''"))).collect();
    let roles = "SELECT rolname, oid FROM pg_catalog.pg_roles WHERE rolname IN";
    format!("{DEFAULTS_STAMP}; {roles} ({}); SELECT pg_catalog.pg_conf_load_time()", names.join(","))
}

/// The functions that are not PostgreSQL's own. Those of its information schema are among them, since they are not in
/// `pg_catalog`.
const OWN: &str = "(p.oid >= 16384 OR p.pronamespace = pg_catalog.to_regnamespace('information_schema'))";

/// Not those that one session has made for itself and that nothing refers to: only that session can call them.
const LASTING: &str = "(p.pronamespace NOT IN (SELECT oid FROM pg_catalog.pg_namespace \
    WHERE pg_catalog.starts_with(nspname, 'pg_temp_')) OR EXISTS (SELECT FROM pg_catalog.pg_depend d \
    WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.refobjid = p.oid))";

/// The next functions behind an oid, in the order of their oids: see `functions`.
pub fn functions_after(oid: u32) -> String {
    functions(&format!("p.oid > {oid} AND {LASTING}"), true)
}

/// All functions of these names: see `functions`. `parsed` says that the server may hold bodies without their text, as from
/// PostgreSQL 14 on.
pub fn functions_named<'n>(names: impl Iterator<Item = &'n str>, parsed: bool) -> String {
    functions(&is_named(names), parsed)
}

/// Rows of `v`, oid and `xmin` of all functions of these names that a version tells of.
pub fn version_of<'n>(names: impl Iterator<Item = &'n str>) -> String {
    format!("SELECT 'v',p.oid,p.xmin FROM pg_catalog.pg_proc p WHERE {} AND p.oid >= 16384", is_named(names))
}

/// As [`version_of`], to be prepared with the names as a parameter of the type [`NAMES`]. By a subquery, so that the plan
/// is the same whatever the names, and is kept.
pub const VERSION: &str = "SELECT 'v',p.oid,p.xmin FROM pg_catalog.pg_proc p \
    WHERE p.proname = ANY (ARRAY(SELECT pg_catalog.unnest($1))) AND p.oid >= 16384";

/// The oid of the type `name[]`.
pub const NAMES: u32 = 1003;

/// A value of that type.
pub fn array_of<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let quoted = names.map(|name| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")));
    format!("{{{}}}", quoted.collect::<Vec<_>>().join(","))
}

fn is_named<'n>(names: impl Iterator<Item = &'n str>) -> String {
    // Whatever `standard_conforming_strings` says.
    let literals = names.map(|name| format!("E'{}'", name.replace('\\', "\\\\").replace('\'', "''")));
    format!("p.proname IN ({})", literals.collect::<Vec<_>>().join(","))
}

/// Functions by a condition: rows of `f`, oid, name, language, volatility, kind, source, defaults of arguments, settings,
/// extension, whether it can be called in the form of a column, and `xmin`. The source of an aggregate is the calls
/// of its parts; that of a function in C is not asked for.
fn functions(which: &str, parsed: bool) -> String {
    let source = if parsed { "coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc)" } else { "p.prosrc" };
    format!(
        "\
SELECT 'f', p.oid, p.proname, l.lanname, p.provolatile, p.prokind,
 CASE WHEN p.prokind = 'a' THEN (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(part.proname) || '()', ';')
   FROM pg_catalog.pg_aggregate a JOIN pg_catalog.pg_proc part ON part.oid IN (a.aggtransfn, a.aggfinalfn,
    a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
   WHERE a.aggfnoid = p.oid)
  WHEN l.lanname IN ('sql', 'plpgsql') THEN {source}
  WHEN l.lanname <> 'c' THEN p.prosrc END,
 CASE WHEN p.pronargdefaults > 0 THEN pg_catalog.pg_get_expr(p.proargdefaults, 0) END,
 p.proconfig,
 (SELECT e.extname FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
  WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid
  AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e' LIMIT 1),
 p.pronargs >= 1 AND p.pronargs - p.pronargdefaults <= 1 AND EXISTS (SELECT FROM pg_catalog.pg_type t
  WHERE t.oid = p.proargtypes[0] AND t.typtype IN ('c', 'd', 'p')),
 p.xmin
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang WHERE {OWN} AND {which}
ORDER BY p.oid LIMIT {FUNCTIONS_PAGE}"
    )
}

/// Relations of which a replica has nothing, or something else: rows of `u`, the name of an unlogged table (`u`) or a
/// sequence (`S`) or of what reads it, and that letter. A replica knows only up to where values of a sequence were logged
/// ahead.
pub const PRIMARY_ONLY: &str = "\
WITH RECURSIVE readers(read, reader) AS (
 SELECT d.refobjid, r.ev_class FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
  JOIN pg_catalog.pg_class v ON v.oid = r.ev_class AND v.relkind = 'v'
  WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
  AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
 UNION ALL SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits),
alone(id, why) AS (
 SELECT oid, CASE relkind WHEN 'S' THEN 'S' ELSE 'u' END FROM pg_catalog.pg_class
  WHERE oid >= 16384 AND (relpersistence = 'u' AND relkind IN ('r', 'm', 'p') OR relkind = 'S')
 UNION SELECT reader, why FROM readers JOIN alone ON id = read)
SELECT DISTINCT 'u', relname, why FROM alone JOIN pg_catalog.pg_class ON oid = id";

/// How functions are reached that no statement names: rows of `r`, the oid of a function, and `w` when only statements
/// that write reach it; of `b`, a name of PostgreSQL's own functions and whether any of them is volatile; of `d` and
/// `w` or not, when a stored expression calls one of PostgreSQL's own that may touch the session, or a rule or a view
/// through which rows can be updated is over `pg_settings`, in which an UPDATE is a SET.
pub fn references() -> String {
    let danger = assumed::touches_session_sql();
    format!(
        "\
SELECT DISTINCT 'r', d.refobjid::pg_catalog.text, CASE
 WHEN d.classid IN ('pg_catalog.pg_trigger'::pg_catalog.regclass, 'pg_catalog.pg_attrdef'::pg_catalog.regclass,
  'pg_catalog.pg_event_trigger'::pg_catalog.regclass) THEN 'w'
 WHEN d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND EXISTS (SELECT FROM pg_catalog.pg_constraint c
  WHERE c.oid = d.objid AND c.contypid = 0) THEN 'w'
 ELSE 'r' END
FROM pg_catalog.pg_depend d
WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.refobjid >= 16384
 AND d.classid <> 'pg_catalog.pg_proc'::pg_catalog.regclass
 AND d.classid <> 'pg_catalog.pg_language'::pg_catalog.regclass;
SELECT 'b', proname, pg_catalog.bool_or(provolatile = 'v') FROM pg_catalog.pg_proc
WHERE pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND oid < 16384 GROUP BY proname;
WITH danger AS MATERIALIZED (SELECT oid FROM pg_catalog.pg_proc
  WHERE pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND {danger}),
 calls AS MATERIALIZED (SELECT ':(funcid|opfuncid) (' || pg_catalog.string_agg(oid::pg_catalog.text, '|') || ') '
  AS pattern FROM danger)
SELECT DISTINCT 'd', reach FROM calls, (
 SELECT 'r' AS reach, ev_action::pg_catalog.text || ev_qual::pg_catalog.text AS tree FROM pg_catalog.pg_rewrite
  WHERE oid >= 16384
 UNION ALL SELECT 'r', coalesce(polqual::pg_catalog.text, '') || coalesce(polwithcheck::pg_catalog.text, '')
  FROM pg_catalog.pg_policy
 UNION ALL SELECT CASE contypid WHEN 0 THEN 'w' ELSE 'r' END, conbin::pg_catalog.text FROM pg_catalog.pg_constraint
  WHERE conbin IS NOT NULL
 UNION ALL SELECT 'w', adbin::pg_catalog.text FROM pg_catalog.pg_attrdef
 UNION ALL SELECT 'w', tgqual::pg_catalog.text FROM pg_catalog.pg_trigger WHERE tgqual IS NOT NULL
 UNION ALL SELECT 'w', typdefaultbin::pg_catalog.text FROM pg_catalog.pg_type
  WHERE typtype = 'd' AND typdefaultbin IS NOT NULL AND oid >= 16384
) stored WHERE tree ~ pattern
UNION SELECT 'd', 'r' FROM pg_catalog.pg_operator o JOIN danger ON o.oprcode::pg_catalog.oid = danger.oid
 WHERE o.oid >= 16384
UNION SELECT 'd', 'r' FROM pg_catalog.pg_cast c JOIN danger ON c.castfunc = danger.oid WHERE c.oid >= 16384
UNION SELECT 'd', 'w' FROM pg_catalog.pg_rewrite WHERE oid >= 16384
 AND (ev_type <> '1' OR pg_catalog.pg_relation_is_updatable(ev_class, false) & 4 <> 0) AND ev_action::pg_catalog.text ~
 (':relid ' || 'pg_catalog.pg_settings'::pg_catalog.regclass::pg_catalog.oid || ' ')"
    )
}
