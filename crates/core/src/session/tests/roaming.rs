//! Transaction blocks that begin on a replica, and leave it.

use super::{player::World, transcripts::check};
use crate::session::Mode;

/// S2 is a replica.
fn with_a_replica() -> World {
    World::new(2, 1, 100, Mode::Transaction)
}

#[test]
fn a_block_that_cannot_write_leaves_a_replica_for_what_that_refuses() {
    check(
        with_a_replica(),
        r#"
        A> Query BEGIN READ ONLY
          A < Complete BEGIN
          A < Ready T
        A> Query SELECT 1
          S2 lent to A
          S2 > Parse - BEGIN READ ONLY
          S2 > Bind - -
          S2 > Execute -
          S2 > Close portal -
          S2 > Query SELECT 1
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready T
        A> Query LISTEN c
          A held
          S2 > Query ROLLBACK
          S2 free
          S1 lent to A
          S1 > Parse - BEGIN READ ONLY
          S1 > Bind - -
          S1 > Execute -
          S1 > Close portal -
          S1 > Query LISTEN c
          A < Error 25006 cannot execute in a read-only transaction
          A < Ready E
        A> Query SELECT 2
          S1 > Query SELECT 2
          A < Error 25P02 current transaction is aborted, commands ignored until end of transaction block
          A < Ready E
        A> Query ROLLBACK
          S1 > Query ROLLBACK
          A < Complete ROLLBACK
          A < Ready I
          S1 > probe role everything
          S1 free
        "#,
    );
}

#[test]
fn a_block_reads_on_a_replica_until_it_writes() {
    check(
        with_a_replica().reading_until_write(),
        r#"
        A> Query BEGIN
          A < Complete BEGIN
          A < Ready T
        A> Query SELECT 1
          S2 lent to A
          S2 > Parse - BEGIN
          S2 > Bind - -
          S2 > Execute -
          S2 > Close portal -
          S2 > Query SELECT 1
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready T
        A> Query SELECT 2 | Query INSERT INTO t VALUES (1) | Query SELECT 1
          A held
          S2 > Query SELECT 2
          A < Columns
          A < Row 20
          A < Complete SELECT 1
          A < Ready T
          A held
          S2 > Query ROLLBACK
          S2 free
          S1 lent to A
          A held
          S1 > Parse - BEGIN
          S1 > Bind - -
          S1 > Execute -
          S1 > Close portal -
          S1 > Query INSERT INTO t VALUES (1)
          A < Complete INSERT 0 1
          A < Ready T
          S1 > Query SELECT 1
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready T
        A> Query COMMIT
          S1 > Query COMMIT
          S1 free
          A < Complete COMMIT
          A < Ready I
        A> Query BEGIN
          A < Complete BEGIN
          A < Ready T
        A> Query SELECT 1/zero FROM t
          S2 lent to A
          S2 > Parse - BEGIN
          S2 > Bind - -
          S2 > Execute -
          S2 > Close portal -
          S2 > Query SELECT 1/zero FROM t
          A < Columns
          A < Error 22012 division by zero
          A < Ready E
        A> Query SET work_mem = '6MB'
          A held
          S2 > Query ROLLBACK
          S2 free
          S1 lent to A
          S1 > Parse - BEGIN
          S1 > Bind - -
          S1 > Execute -
          S1 > Close portal -
          S1 > Parse - refused by Poolhouse
          S1 > Sync
          S1 > Query SET work_mem = '6MB'
          A < Error 25P02 current transaction is aborted, commands ignored until end of transaction block
          A < Ready E
        A> Query COMMIT
          S1 > Query COMMIT
          A < Complete ROLLBACK
          A < Ready I
          S1 > probe work_mem
          S1 free
        A> Query BEGIN
          A < Complete BEGIN
          A < Ready T
        A> Query SELECT 1
          S2 lent to A
          S2 > Parse - BEGIN
          S2 > Bind - -
          S2 > Execute -
          S2 > Close portal -
          S2 > Query SELECT 1
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready T
        A> Query COMMIT
          S2 > Query COMMIT
          S2 free
          A < Complete COMMIT
          A < Ready I
        "#,
    );
}

#[test]
fn a_batch_begins_a_block_on_a_replica_and_leaves_no_cursor_there() {
    check(
        with_a_replica(),
        r#"
        A> Parse - BEGIN READ ONLY | Bind - - | Execute - | Parse - SELECT 1 | Bind - - | Execute - | Sync
          S2 lent to A
          S2 > Parse - BEGIN READ ONLY
          S2 > Bind - -
          S2 > Execute -
          S2 > Parse - SELECT 1
          S2 > Bind - -
          S2 > Execute -
          S2 > Sync
          A < ParseComplete
          A < BindComplete
          A < Complete BEGIN
          A < ParseComplete
          A < BindComplete
          A < Row 10
          A < Complete SELECT 1
          A < Ready T
        A> Parse - SELECT 2 | Bind - - | Execute - | Sync
          S2 > Parse - SELECT 2
          S2 > Bind - -
          S2 > Execute -
          S2 > Sync
          A < ParseComplete
          A < BindComplete
          A < Row 20
          A < Complete SELECT 1
          A < Ready T
        A> Parse - TABLE five | Bind - - | Execute - 2 | Sync
          A held
          S2 > Query ROLLBACK
          S2 free
          S1 lent to A
          S1 > Parse - BEGIN READ ONLY
          S1 > Bind - -
          S1 > Execute -
          S1 > Close portal -
          S1 > Parse - TABLE five
          S1 > Bind - -
          S1 > Execute - 2
          S1 > Sync
          A < ParseComplete
          A < BindComplete
          A < Row row 0
          A < Row row 1
          A < Suspended
          A < Ready T
        A> Execute - 2 | Sync
          S1 > Execute - 2
          S1 > Sync
          A < Row row 2
          A < Row row 3
          A < Suspended
          A < Ready T
        A> Parse - COMMIT | Bind - - | Execute - | Sync
          S1 > Parse - COMMIT
          S1 > Bind - -
          S1 > Execute -
          S1 > Sync
          S1 free
          A < ParseComplete
          A < BindComplete
          A < Complete COMMIT
          A < Ready I
        A> Parse - BEGIN READ ONLY | Bind - - | Execute - | Sync
          S1 lent to A
          S1 > Parse - BEGIN READ ONLY
          S1 > Bind - -
          S1 > Execute -
          S1 > Sync
          A < ParseComplete
          A < BindComplete
          A < Complete BEGIN
          A < Ready T
        A> Query ROLLBACK
          S1 > Query ROLLBACK
          S1 free
          A < Complete ROLLBACK
          A < Ready I
        "#,
    );
}

#[test]
fn a_block_outlives_the_loss_of_a_replica_between_two_statements() {
    check(
        with_a_replica().reading_until_write(),
        r#"
        A> Query BEGIN
          A < Complete BEGIN
          A < Ready T
        A> Query SELECT 1
          S2 lent to A
          S2 > Parse - BEGIN
          S2 > Bind - -
          S2 > Execute -
          S2 > Close portal -
          S2 > Query SELECT 1
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready T
        ! lose S2
          S2 lost
        A> Query SELECT 2
          S2 lent to A
          S2 > Parse - BEGIN
          S2 > Bind - -
          S2 > Execute -
          S2 > Close portal -
          S2 > Query SELECT 2
          A < Columns
          A < Row 20
          A < Complete SELECT 1
          A < Ready T
        A> Query COMMIT
          S2 > Query COMMIT
          S2 free
          A < Complete COMMIT
          A < Ready I
        "#,
    );
}

#[test]
fn a_replica_that_a_block_has_left_lacks_the_clients_unnamed_statement() {
    check(
        with_a_replica().reading_until_write(),
        r#"
        A> Query BEGIN
          A < Complete BEGIN
          A < Ready T
        A> Parse - SELECT 1 | Bind - - | Execute - | Sync
          S2 lent to A
          S2 > Parse - BEGIN
          S2 > Bind - -
          S2 > Execute -
          S2 > Close portal -
          S2 > Parse - SELECT 1
          S2 > Bind - -
          S2 > Execute -
          S2 > Sync
          A < ParseComplete
          A < BindComplete
          A < Row 10
          A < Complete SELECT 1
          A < Ready T
        A> Parse s INSERT INTO t VALUES (1) | Bind - s | Execute - | Sync
          A held
          S2 > Query ROLLBACK
          S2 free
          S1 lent to A
          S1 > Parse - BEGIN
          S1 > Bind - -
          S1 > Execute -
          S1 > Close portal -
          S1 > Parse __poolhouse_2 INSERT INTO t VALUES (1)
          S1 > Flush
          S1 > Bind - __poolhouse_2
          S1 > Execute -
          S1 > Sync
          A < ParseComplete
          A < BindComplete
          A < Complete INSERT 0 1
          A < Ready T
        A> Parse c COMMIT | Bind - c | Execute - | Sync
          S1 > Parse __poolhouse_3 COMMIT
          S1 > Bind - __poolhouse_3
          S1 > Execute -
          S1 > Sync
          S1 free
          A < ParseComplete
          A < BindComplete
          A < Complete COMMIT
          A < Ready I
        A> Bind - - | Execute - | Sync
          S2 lent to A
          S2 > Parse - SELECT 1
          S2 > Bind - -
          S2 > Execute -
          S2 > Sync
          S2 free
          A < BindComplete
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

#[test]
fn a_begin_that_is_cancelled_fails_its_block_and_nothing_runs_outside_of_it() {
    check(
        World::new(1, 0, 100, Mode::Transaction),
        r#"
        A> Query BEGIN
          A < Complete BEGIN
          A < Ready T
        ! cancel on S1
        A> Query INSERT INTO t VALUES (1) | Query INSERT INTO t VALUES (1)
          S1 lent to A
          A held
          S1 > Parse - BEGIN
          S1 > Bind - -
          S1 > Execute -
          S1 > Close portal -
          S1 > Query INSERT INTO t VALUES (1)
          A < Error 57014 canceling statement due to user request
          A held
          S1 > Sync
          S1 free
          A < Ready E
          S1 lent to A
          S1 > Parse - BEGIN
          S1 > Bind - -
          S1 > Execute -
          S1 > Close portal -
          S1 > Parse - refused by Poolhouse
          S1 > Sync
          S1 > Query INSERT INTO t VALUES (1)
          A < Error 25P02 current transaction is aborted, commands ignored until end of transaction block
          A < Ready E
        A> Query ROLLBACK
          S1 > Query ROLLBACK
          S1 free
          A < Complete ROLLBACK
          A < Ready I
        A> Query BEGIN
          A < Complete BEGIN
          A < Ready T
        ! cancel on S1
        A> Parse - INSERT INTO t VALUES (1) | Bind - - | Execute - | Sync | Parse - SELECT 1 | Bind - - | Execute - | Sync
          S1 lent to A
          A held
          S1 > Parse - BEGIN
          S1 > Bind - -
          S1 > Execute -
          S1 > Close portal -
          S1 > Parse - INSERT INTO t VALUES (1)
          S1 > Bind - -
          S1 > Execute -
          S1 > Sync
          S1 free
          A < Error 57014 canceling statement due to user request
          A < Ready E
          S1 lent to A
          S1 > Parse - BEGIN
          S1 > Bind - -
          S1 > Execute -
          S1 > Close portal -
          S1 > Parse - refused by Poolhouse
          S1 > Sync
          S1 > Parse - SELECT 1
          S1 > Bind - -
          S1 > Execute -
          S1 > Sync
          A < Error 25P02 current transaction is aborted, commands ignored until end of transaction block
          A < Ready E
        A> Query COMMIT
          S1 > Query COMMIT
          S1 free
          A < Complete ROLLBACK
          A < Ready I
        A> Query BEGIN
          A < Complete BEGIN
          A < Ready T
        ! cancel on S1
        A> Parse - INSERT INTO t VALUES (1) | Bind - - | Execute - | Flush
          S1 lent to A
          S1 > Parse - BEGIN
          S1 > Bind - -
          S1 > Execute -
          S1 > Close portal -
          S1 > Parse - INSERT INTO t VALUES (1)
          S1 > Bind - -
          S1 > Execute -
          S1 > Flush
          A < Error 57014 canceling statement due to user request
        A> Bind - - | Sync
          S1 > Sync
          S1 free
          A < Ready E
        A> Query ROLLBACK
          A < Complete ROLLBACK
          A < Ready I
        "#,
    );
}
