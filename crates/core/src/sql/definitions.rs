//! Which statements may change what code there is in a database, or what calls it without being told to.

use super::{
    census,
    facts::Fact,
    functions::{self, FunctionKind},
    statement::StatementKind,
    tree::{TreeValue, unescape},
};

/// Whether a statement may do that, by its kind and its node. Tables count only when something is called in them that is
/// not built in and harmless: all else that their columns can call is reached already.
pub(super) fn defines(kind: StatementKind, node: TreeValue<'_, '_>) -> bool {
    match kind {
        StatementKind::AlterTable
        | StatementKind::CreateForeignTable
        | StatementKind::CreateStatistics
        | StatementKind::CreateTable
        | StatementKind::CreateIndex => calls(node),
        StatementKind::Drop => !matches!(
            node.text_of("removeType"),
            "OBJECT_FOREIGN_TABLE" | "OBJECT_INDEX" | "OBJECT_SEQUENCE" | "OBJECT_TABLE"
        ),
        StatementKind::CreateFunction => true,
        _ => kind.facts().contains(Fact::Defines),
    }
}

fn calls(node: TreeValue<'_, '_>) -> bool {
    let names = node.walk().filter(|value| value.key() == "FuncCall").filter_map(|call| call.get("funcname"));
    names.filter_map(|name| name.children().last()?.only()).any(|part| {
        let name = unescape(part.text_of("sval"));
        functions::kind(&name) == FunctionKind::Unknown || census::touches_session(&name)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Fact, judge};

    #[test]
    fn statements_that_define_code() {
        for sql in [
            "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE PROCEDURE p() LANGUAGE sql AS 'SELECT 1'",
            "ALTER FUNCTION f() STABLE",
            "ALTER FUNCTION f() RENAME TO g",
            "DROP FUNCTION f()",
            "CREATE TRIGGER t AFTER INSERT ON x EXECUTE FUNCTION f()",
            "DROP TRIGGER t ON x",
            "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f()",
            "CREATE RULE r AS ON INSERT TO x DO ALSO SELECT f()",
            "CREATE VIEW v AS SELECT f()",
            "CREATE MATERIALIZED VIEW v AS SELECT 1; CREATE VIEW w AS SELECT 1",
            "CREATE CAST (a AS b) WITH FUNCTION f(a)",
            "CREATE OPERATOR + (FUNCTION = f, RIGHTARG = a)",
            "CREATE AGGREGATE a(int) (SFUNC = f, STYPE = int)",
            "CREATE TYPE t AS RANGE (SUBTYPE = int)",
            "CREATE DOMAIN d AS int CHECK (f(VALUE))",
            "ALTER DOMAIN d ADD CHECK (f(VALUE))",
            "CREATE POLICY p ON x USING (f())",
            "CREATE EXTENSION hstore",
            "ALTER EXTENSION hstore UPDATE",
            "CREATE TABLE x (a int DEFAULT f())",
            "CREATE TABLE x (a int DEFAULT s.f())",
            "CREATE TABLE x (a text DEFAULT set_config('a.b', 'c', false))",
            "ALTER TABLE x ADD COLUMN a int DEFAULT f()",
            "CREATE INDEX ON x (f(a))",
            "BEGIN; CREATE VIEW v AS SELECT 1; COMMIT",
            "DO 'BEGIN EXECUTE $1; END'",
            "DO LANGUAGE plperl '1'",
        ] {
            assert!(judge(sql).facts.contains(Fact::Defines), "{sql}");
        }
    }

    #[test]
    fn statements_that_do_not() {
        for sql in [
            "SELECT f()",
            "INSERT INTO x VALUES (f())",
            "CREATE TABLE x (a int PRIMARY KEY, b int DEFAULT 1 CHECK (b > 0))",
            "CREATE TEMP TABLE x AS SELECT f()",
            "ALTER TABLE x ADD COLUMN a int",
            "CREATE TABLE x (a serial, b timestamp DEFAULT now(), c uuid DEFAULT pg_catalog.gen_random_uuid())",
            "CREATE INDEX ON x (a)",
            "CREATE INDEX ON x (lower(a))",
            "DROP TABLE x",
            "TRUNCATE x",
            "SET work_mem = 1",
            "DO 'BEGIN PERFORM f(); END'",
        ] {
            assert!(!judge(sql).facts.contains(Fact::Defines), "{sql}");
        }
    }
}
