//! Settings of Poolhouse's own in conversations: who answers, and when.

use super::{
    player::World,
    transcripts::{check, servers},
};
use crate::session::Mode;

#[test]
fn settings_of_our_own_need_no_server() {
    check(
        servers(1),
        r#"
        A> Query SHOW poolhouse.route | Query SET poolhouse.route = 'primary' | Query SHOW poolhouse.route
          A < Columns
          A < Row auto
          A < Complete SHOW
          A < Ready I
          A < Complete SET
          A < Ready I
          A < Columns
          A < Row primary
          A < Complete SHOW
          A < Ready I
        A> Query SET poolhouse.route = 'x' | Query SHOW poolhouse.rule | Query SET LOCAL poolhouse.route = 'auto'
          A < Error 22023 invalid value for parameter "poolhouse.route": "x"
          A < Ready I
          A < Error 42704 unrecognized configuration parameter "poolhouse.rule"
          A < Ready I
          A < Notice SET LOCAL can only be used in transaction blocks
          A < Complete SET
          A < Ready I
        A> Query SHOW poolhouse.route; RESET poolhouse.route; SHOW poolhouse.route
          A < Columns
          A < Row primary
          A < Complete SHOW
          A < Complete RESET
          A < Columns
          A < Row auto
          A < Complete SHOW
          A < Ready I
        A> Query SET poolhouse.route = 'primary'; SET poolhouse.explain = 'x' | Query SHOW poolhouse.route
          A < Error 22023 parameter "poolhouse.explain" requires a Boolean value
          A < Ready I
          A < Columns
          A < Row auto
          A < Complete SHOW
          A < Ready I
        "#,
    );
}

#[test]
fn the_extended_protocol_has_them_too() {
    check(
        servers(1),
        r#"
        A> Parse - SET poolhouse.route = 'primary' | Describe statement - | Bind - - | Describe portal - | Execute - | Sync
          A < ParseComplete
          A < Parameters
          A < NoData
          A < BindComplete
          A < NoData
          A < Complete SET
          A < Ready I
        A> Parse s SHOW poolhouse.route | Bind p s | Describe portal p | Execute p | Close statement s | Sync | Bind p s | Sync
          S1 lent to A
          A < ParseComplete
          A < BindComplete
          A < Columns
          A < Row primary
          A < Complete SHOW
          A < CloseComplete
          A < Ready I
          S1 > Bind p s
          S1 > Sync
          S1 free
          A < Error 26000 prepared statement "s" does not exist
          A < Ready I
        A> Parse - SHOW poolhouse.rout | Bind - - | Describe portal - | Execute - | Sync
          A < ParseComplete
          A < BindComplete
          A < Error 42704 unrecognized configuration parameter "poolhouse.rout"
          A < Ready I
        A> Parse - SELECT 1 | Bind - - | Parse - SHOW poolhouse.route | Bind q - | Execute q | Execute - | Sync
          S1 lent to A
          A held
          S1 > Parse - SELECT 1
          S1 > Bind - -
          S1 > Flush
          A < ParseComplete
          A < BindComplete
          A < ParseComplete
          A < BindComplete
          A < Row primary
          A < Complete SHOW
          S1 > Execute -
          S1 > Sync
          S1 free
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

#[test]
fn what_fails_in_a_batch_takes_them_back() {
    check(
        servers(1),
        r#"
        A> Parse - SET poolhouse.route = 'primary' | Bind - - | Execute - | Parse - SELEC | Sync
          S1 lent to A
          A < ParseComplete
          A < BindComplete
          A < Complete SET
          S1 > Parse - SELEC
          S1 > Sync
          S1 free
          A < Error 42601 syntax error at or near "SELEC"
          A < Ready I
        A> Query SHOW poolhouse.route
          A < Columns
          A < Row auto
          A < Complete SHOW
          A < Ready I
        A> Parse - SET poolhouse.route = 'primary' | Bind - - | Execute - | Parse - SHOW poolhouse.x | Bind - - | Execute - | Sync
          A < ParseComplete
          A < BindComplete
          A < Complete SET
          A < ParseComplete
          A < BindComplete
          A < Error 42704 unrecognized configuration parameter "poolhouse.x"
          A < Ready I
        A> Query SHOW poolhouse.route
          A < Columns
          A < Row auto
          A < Complete SHOW
          A < Ready I
        "#,
    );
}

#[test]
fn they_follow_transactions() {
    check(
        servers(1),
        r#"
        A> Query BEGIN | Query SET poolhouse.route = 'primary' | Query SHOW poolhouse.route
          S1 lent to A
          A held
          A < Complete BEGIN
          A < Ready T
          S1 > Parse - BEGIN
          S1 > Bind - -
          S1 > Execute -
          S1 > Close portal -
          S1 > Flush
          A < Complete SET
          A < Ready T
          A < Columns
          A < Row primary
          A < Complete SHOW
          A < Ready T
        A> Query ROLLBACK
          S1 > Query ROLLBACK
          S1 free
          A < Complete ROLLBACK
          A < Ready I
        A> Query SHOW poolhouse.route | Query BEGIN
          S1 lent to A
          A < Columns
          A < Row auto
          A < Complete SHOW
          A < Ready I
          S1 > Query BEGIN
          A < Complete BEGIN
          A < Ready T
        A> Query SET poolhouse.route = 'primary'
          A < Complete SET
          A < Ready T
        A> Query SET poolhouse.route = 'x'
          S1 > Parse - refused by Poolhouse
          S1 > Sync
          A < Error 22023 invalid value for parameter "poolhouse.route": "x"
          A < Ready E
        A> Query SHOW poolhouse.route
          S1 > Parse - refused by Poolhouse
          S1 > Sync
          A < Error 25P02 current transaction is aborted, commands ignored until end of transaction block
          A < Ready E
        A> Parse - SHOW poolhouse.route | Bind - - | Sync
          S1 > Parse - refused by Poolhouse
          S1 > Close statement -
          S1 > Bind - -
          S1 > Sync
          A < Error 25P02 current transaction is aborted, commands ignored until end of transaction block
          A < Ready E
        A> Query COMMIT
          S1 > Query COMMIT
          S1 free
          A < Complete ROLLBACK
          A < Ready I
        A> Query SHOW poolhouse.route
          A < Columns
          A < Row auto
          A < Complete SHOW
          A < Ready I
        A> Query BEGIN
          S1 lent to A
          S1 > Query BEGIN
          A < Complete BEGIN
          A < Ready T
        A> Parse - SET poolhouse.route = 'primary' | Bind - - | Execute - | Sync
          A < ParseComplete
          A < BindComplete
          A < Complete SET
          S1 > Sync
          A < Ready T
        A> Query COMMIT
          S1 > Query COMMIT
          S1 free
          A < Complete COMMIT
          A < Ready I
        A> Query SHOW poolhouse.route
          A < Columns
          A < Row primary
          A < Complete SHOW
          A < Ready I
        "#,
    );
}

#[test]
fn reset_all_and_discard_all_reset_them() {
    check(
        servers(1),
        r#"
        A> Query SET poolhouse.route = 'primary'
          A < Complete SET
          A < Ready I
        A> Query DISCARD ALL
          S1 lent to A
          S1 > Query DISCARD ALL
          A < Complete DISCARD ALL
          A < Ready I
          S1 > probe role everything
          S1 free
        A> Query SHOW poolhouse.route
          A < Columns
          A < Row auto
          A < Complete SHOW
          A < Ready I
        "#,
    );
}

#[test]
fn a_text_that_names_them_with_others_is_refused() {
    check(
        servers(1),
        r#"
        A> Query SET poolhouse.route = 'primary'; SELECT 1
          A < Error 0A000 settings of Poolhouse cannot be named together with other statements, in set_config, or as a default
          A < Ready I
        A> Query SELECT set_config('poolhouse.route', 'primary', false)
          A < Error 0A000 settings of Poolhouse cannot be named together with other statements, in set_config, or as a default
          A < Ready I
        A> Parse - SET poolhouse.route = 'primary'; SHOW poolhouse.route | Sync
          A < Error 42601 cannot insert multiple commands into a prepared statement
          A < Ready I
        "#,
    );
}

#[test]
fn a_session_says_where_everything_goes() {
    check(
        World::new(3, 2, 100, Mode::Transaction),
        r#"
        A> Query SELECT 1
          S2 lent to A
          S2 > Query SELECT 1
          S2 free
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        A> Query SET poolhouse.route = 'primary' | Query SELECT 1
          S1 lent to A
          A < Complete SET
          A < Ready I
          S1 > Query SELECT 1
          S1 free
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        A> Query SET poolhouse.route = 'replica' | Query INSERT INTO t VALUES (1)
          S2 lent to A
          A < Complete SET
          A < Ready I
          S2 > Query INSERT INTO t VALUES (1)
          S2 free
          A < Error 25006 cannot execute in a read-only transaction
          A < Ready I
        A> Parse - INSERT INTO t VALUES (1) | Bind - - | Execute - | Sync
          S2 lent to A
          S2 > Parse - INSERT INTO t VALUES (1)
          S2 > Bind - -
          S2 > Execute -
          S2 > Sync
          S2 free
          A < ParseComplete
          A < BindComplete
          A < Error 25006 cannot execute in a read-only transaction
          A < Ready I
        A> Query BEGIN | Query SELECT 1 | Query ROLLBACK | Query SET poolhouse.route = 'auto' | Query INSERT INTO t VALUES (1)
          S2 lent to A
          A held
          S2 > Query BEGIN
          S2 > Query SELECT 1
          S2 > Query ROLLBACK
          S2 free
          A < Complete BEGIN
          A < Ready T
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready T
          A < Complete ROLLBACK
          A < Ready I
          S1 lent to A
          A < Complete SET
          A < Ready I
          S1 > Query INSERT INTO t VALUES (1)
          S1 free
          A < Complete INSERT 0 1
          A < Ready I
        "#,
    );
}

#[test]
fn a_notice_says_where_a_statement_runs_and_why() {
    check(
        World::new(3, 2, 100, Mode::Transaction),
        r#"
        A> Query SET poolhouse.explain = on | Query SELECT 1 | Query INSERT INTO t VALUES (1)
          S2 lent to A
          A held
          A < Complete SET
          A < Ready I
          S2 > Query SELECT 1
          S2 free
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Notice runs on n2: only reads
          A < Ready I
          S1 lent to A
          S1 > Query INSERT INTO t VALUES (1)
          S1 free
          A < Complete INSERT 0 1
          A < Notice runs on n1: statement of kind Insert
          A < Ready I
        A> Parse - SELECT 1 | Bind - - | Execute - | Sync | Parse - SELECT 1 | Bind - - | Execute - | Sync
          S2 lent to A
          A held
          S2 > Parse - SELECT 1
          S2 > Bind - -
          S2 > Execute -
          S2 > Sync
          S2 > Parse - SELECT 1
          A < ParseComplete
          A < BindComplete
          A < Row 10
          A < Complete SELECT 1
          A < Notice runs on n2: only reads
          A < Ready I
          S2 > Bind - -
          S2 > Execute -
          S2 > Sync
          S2 free
          A < ParseComplete
          A < BindComplete
          A < Row 10
          A < Complete SELECT 1
          A < Notice runs on n2: only reads
          A < Ready I
        A> Query BEGIN | Query SELECT missing
          S1 lent to A
          A held
          S1 > Query BEGIN
          A < Complete BEGIN
          A < Notice runs on n1: statement of kind Transaction
          A < Ready T
          S1 > Query SELECT missing
          A < Error 42703 column "missing" does not exist
          A < Notice runs on n1: the transaction runs there (verdict: only reads)
          A < Ready E
        A> Query ROLLBACK
          S1 > Query ROLLBACK
          S1 free
          A < Complete ROLLBACK
          A < Notice runs on n1: the transaction runs there (verdict: statement of kind Transaction)
          A < Ready I
        "#,
    );
}

#[test]
fn hints_in_comments() {
    check(
        World::new(3, 2, 100, Mode::Transaction),
        r#"
        A> Query /* poolhouse: primary */ SELECT 1
          S1 lent to A
          S1 > Query /* poolhouse: primary */ SELECT 1
          S1 free
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        A> Query /* poolhouse: replica */ INSERT INTO t VALUES (1)
          S2 lent to A
          S2 > Query /* poolhouse: replica */ INSERT INTO t VALUES (1)
          S2 free
          A < Error 25006 cannot execute in a read-only transaction
          A < Ready I
        A> Query /* poolhouse: node=elsewhere */ SELECT 1
          S2 lent to A
          S2 > Query /* poolhouse: node=elsewhere */ SELECT 1
          S2 free
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Notice there is no node "elsewhere", so the hint in the statement is ignored
          A < Ready I
        A> Query /* poolhouse: nowhere */ SELECT 1
          S2 lent to A
          S2 > Query /* poolhouse: nowhere */ SELECT 1
          S2 free
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Notice the hint "nowhere" in the statement is unknown and ignored
          A < Ready I
        A> Parse - /* poolhouse: primary */ SELECT 1 | Bind - - | Execute - | Sync
          S1 lent to A
          S1 > Parse - /* poolhouse: primary */ SELECT 1
          S1 > Bind - -
          S1 > Execute -
          S1 > Sync
          S1 free
          A < ParseComplete
          A < BindComplete
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        A> Parse - SELECT 1 | Parse - /*NO LOAD BALANCE*/ SELECT 1 | Bind - - | Execute - | Sync
          S1 lent to A
          S1 > Parse - SELECT 1
          S1 > Parse - /*NO LOAD BALANCE*/ SELECT 1
          S1 > Bind - -
          S1 > Execute -
          S1 > Sync
          S1 free
          A < ParseComplete
          A < ParseComplete
          A < BindComplete
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        A> Query BEGIN | Query /* poolhouse: replica */ SELECT 1 | Query COMMIT
          S1 lent to A
          A held
          S1 > Query BEGIN
          A < Complete BEGIN
          A < Ready T
          S1 > Query /* poolhouse: replica */ SELECT 1
          S1 > Query COMMIT
          S1 free
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready T
          A < Complete COMMIT
          A < Ready I
        "#,
    );
}
