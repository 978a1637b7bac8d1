//! Conversations, written down. A line such as `A> Query SELECT 1 | Sync` is what client A sends, `!` is something that
//! happens; all other lines are what follows: `S1 >` is what a server hears, `A <` what a client receives.

use super::{
    message::Message,
    player::{World, name_of},
};
use crate::session::Mode;

/// Plays the lines that are input, and compares all that is told with `transcript`.
pub(super) fn check(world: World, transcript: &str) {
    let told = play(world, transcript);
    let told: Vec<&str> = told.iter().map(|line| line.trim()).collect();
    let expected: Vec<&str> = transcript.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert!(told == expected, "it went like this:\n{}\n", told.join("\n"));
}

fn play(mut world: World, transcript: &str) -> Vec<String> {
    if world.clients.is_empty() {
        world.add_client(&[]);
        world.add_client(&[]);
    }
    for line in transcript.lines().map(str::trim) {
        let client = world.clients.iter().enumerate().map(|(at, _)| at).find(|at| {
            let sends = format!("{}> ", name_of(*at));
            line.starts_with(&sends)
        });
        if let Some(event) = line.strip_prefix("! ") {
            world.log.push(line.to_owned());
            happen(&mut world, event);
            world.settle();
        } else if let Some(client) = client {
            world.log.push(line.to_owned());
            for message in line[3..].split(" | ") {
                world.send_message(client, &Message::read(&message.replace("\\|", "|")));
            }
            world.settle();
        }
    }
    world.log
}

fn happen(world: &mut World, event: &str) {
    let (what, server) = event.split_once(" S").expect("an event and a server");
    let server = server.parse::<usize>().expect("its number") - 1;
    match what {
        "next is" => world.lend_next = Some(server),
        "lose" => world.lose(server),
        "stop" => world.servers[server].stopped = true,
        "go on" => world.servers[server].stopped = false,
        "cancel on" => world.servers[server].model.canceled = true,
        "no roles on" => world.servers[server].model.no_roles = true,
        "cut" => {
            // Up to the middle of the first row.
            world.servers[server].stopped = false;
            world.move_server(server);
            world.move_replies(server, 12);
            world.lose(server);
        }
        other => panic!("no such event: {other}"),
    }
}

pub(super) fn servers(count: usize) -> World {
    World::new(count, 0, 100, Mode::Transaction)
}

#[test]
fn who_asks_what_was_drawn_is_told_what_was_drawn_last_or_nothing() {
    let drawn_on_both = r#"
        ! next is S1
        A> Query INSERT INTO t VALUES (1)
          S1 lent to A
          S1 > Query INSERT INTO t VALUES (1)
          S1 free
          A < Complete INSERT 0 1
          A < Ready I
        ! next is S2
        A> Query INSERT INTO t VALUES (1)
          S2 lent to A
          S2 > Query INSERT INTO t VALUES (1)
          S2 free
          A < Complete INSERT 0 1
          A < Ready I
        "#;
    let on_the_first = r#"
        ! next is S1
        A> Query SELECT lastval()
          S1 lent to A
          S1 > Query DISCARD SEQUENCES;
          S1 > Query SELECT lastval()
          S1 free
          A < Columns
          A < Error 55000 lastval is not yet defined in this session
          A < Ready I
        "#;
    check(servers(2), &[drawn_on_both, on_the_first].concat());
    // There it stays.
    let on_the_second = r#"
        ! next is S2
        A> Query SELECT lastval()
          S2 lent to A
          S2 > Query SELECT lastval()
          A < Columns
          A < Row drawn 1, 0
          A < Complete SELECT 1
          A < Ready I
        A> Query SELECT lastval()
          S2 > Query SELECT lastval()
          A < Columns
          A < Row drawn 1, 0
          A < Complete SELECT 1
          A < Ready I
        "#;
    check(servers(2), &[drawn_on_both, on_the_second].concat());
}

#[test]
fn where_sessions_ask_what_they_have_drawn_nobody_draws_among_values_of_others() {
    check(
        servers(1),
        r#"
        A> Query INSERT INTO t VALUES (1)
          S1 lent to A
          S1 > Query INSERT INTO t VALUES (1)
          S1 free
          A < Complete INSERT 0 1
          A < Ready I
        B> Query SELECT lastval()
          S1 lent to B
          S1 > Query DISCARD SEQUENCES;
          S1 > Query SELECT lastval()
          S1 free
          B < Columns
          B < Error 55000 lastval is not yet defined in this session
          B < Ready I
        A> Query INSERT INTO t VALUES (1)
          S1 lent to A
          S1 > Query DISCARD SEQUENCES;
          S1 > Query INSERT INTO t VALUES (1)
          S1 free
          A < Complete INSERT 0 1
          A < Ready I
        A> Query SELECT lastval()
          S1 lent to A
          S1 > Query SELECT lastval()
          A < Columns
          A < Row drawn 1, 0
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

#[test]
fn an_unnamed_statement_outlives_its_sync_on_another_server() {
    check(
        servers(2),
        r#"
        ! next is S1
        A> Parse - SELECT 1 | Sync
          S1 lent to A
          S1 > Parse - SELECT 1
          S1 > Sync
          S1 free
          A < ParseComplete
          A < Ready I
        ! next is S2
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
fn nobody_binds_the_unnamed_statement_of_another_client() {
    check(
        servers(1),
        r#"
        A> Parse - SELECT 1 | Sync
          S1 lent to A
          S1 > Parse - SELECT 1
          S1 > Sync
          S1 free
          A < ParseComplete
          A < Ready I
        B> Bind - - | Sync
          S1 lent to B
          S1 > Close statement -
          S1 > Bind - -
          S1 > Sync
          S1 free
          B < Error 26000 unnamed prepared statement does not exist
          B < Ready I
        B> Describe statement - | Sync
          S1 lent to B
          S1 > Close statement -
          S1 > Describe statement -
          S1 > Sync
          S1 free
          B < Error 26000 unnamed prepared statement does not exist
          B < Ready I
        "#,
    );
}

#[test]
fn a_statement_that_the_server_holds_is_parsed_anew_for_each_client() {
    check(
        servers(1),
        r#"
        A> Parse a SELECT 1 | Sync
          S1 lent to A
          S1 > Parse __poolhouse_1 SELECT 1
          S1 > Sync
          S1 free
          A < ParseComplete
          A < Ready I
        B> Parse b SELECT 1 | Bind - b | Execute - | Sync
          S1 lent to B
          S1 > Close statement __poolhouse_1
          S1 > Parse __poolhouse_1 SELECT 1
          S1 > Bind - __poolhouse_1
          S1 > Execute -
          S1 > Sync
          S1 free
          B < ParseComplete
          B < BindComplete
          B < Row 10
          B < Complete SELECT 1
          B < Ready I
        "#,
    );
}

#[test]
fn a_parse_comes_after_the_replay_in_front_of_it() {
    check(
        servers(1),
        r#"
        A> Parse a SELECT 1 | Sync
          S1 lent to A
          S1 > Parse __poolhouse_1 SELECT 1
          S1 > Sync
          S1 free
          A < ParseComplete
          A < Ready I
        B> Query SET work_mem = '8MB'
          S1 lent to B
          S1 > Query SET work_mem = '8MB'
          B < Complete SET
          B < Ready I
          S1 > probe work_mem
          S1 free
        A> Parse b SELECT 1 | Bind - b | Execute - | Sync
          S1 lent to A
          S1 > Query RESET "work_mem";
          S1 > Close statement __poolhouse_1
          S1 > Parse __poolhouse_1 SELECT 1
          S1 > Bind - __poolhouse_1
          S1 > Execute -
          S1 > Sync
          S1 free
          A < ParseComplete
          A < BindComplete
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

/// Also when two names mean one text.
#[test]
fn a_name_that_is_taken_is_refused_in_the_clients_own_spelling() {
    check(
        servers(1),
        r#"
        A> Parse one SELECT 1 | Parse two SELECT 1 | Sync
          S1 lent to A
          S1 > Parse __poolhouse_1 SELECT 1
          S1 > Close statement __poolhouse_1
          S1 > Parse __poolhouse_1 SELECT 1
          S1 > Sync
          S1 free
          A < ParseComplete
          A < ParseComplete
          A < Ready I
        A> Parse two SELECT 2 | Sync
          S1 lent to A
          S1 > Parse __poolhouse_1 SELECT 2
          S1 > Sync
          S1 free
          A < Error 42P05 prepared statement "two" already exists
          A < Ready I
        A> Parse one SELECT 2 | Sync
          S1 lent to A
          S1 > Parse __poolhouse_1 SELECT 2
          S1 > Sync
          S1 free
          A < Error 42P05 prepared statement "one" already exists
          A < Ready I
        "#,
    );
}

#[test]
fn a_parse_that_fails_leaves_no_name() {
    check(
        servers(1),
        r#"
        A> Parse a SELECT missing | Sync
          S1 lent to A
          S1 > Parse __poolhouse_1 SELECT missing
          S1 > Sync
          S1 free
          A < Error 42703 column "missing" does not exist
          A < Ready I
        A> Bind - a | Sync
          S1 lent to A
          S1 > Bind - a
          S1 > Sync
          S1 free
          A < Error 26000 prepared statement "a" does not exist
          A < Ready I
        A> Parse a SELECT 1 | Bind - a | Execute - | Sync
          S1 lent to A
          S1 > Parse __poolhouse_2 SELECT 1
          S1 > Bind - __poolhouse_2
          S1 > Execute -
          S1 > Sync
          S1 free
          A < ParseComplete
          A < BindComplete
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

#[test]
fn a_name_can_be_closed_and_given_again_in_one_pipeline() {
    check(
        servers(1),
        r#"
        A> Parse a SELECT 1 | Sync
          S1 lent to A
          S1 > Parse __poolhouse_1 SELECT 1
          S1 > Sync
          S1 free
          A < ParseComplete
          A < Ready I
        A> Close statement a | Parse a SELECT 2 | Bind - a | Execute - | Sync
          S1 lent to A
          A < CloseComplete
          S1 > Parse __poolhouse_2 SELECT 2
          S1 > Bind - __poolhouse_2
          S1 > Execute -
          S1 > Sync
          S1 free
          A < ParseComplete
          A < BindComplete
          A < Row 20
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

#[test]
fn a_close_between_two_syncs_is_answered_in_its_turn() {
    check(
        servers(1),
        r#"
        A> Parse a SELECT 1 | Sync
          S1 lent to A
          S1 > Parse __poolhouse_1 SELECT 1
          S1 > Sync
          S1 free
          A < ParseComplete
          A < Ready I
        A> Parse - SELECT 2 | Sync | Close statement a | Sync
          S1 lent to A
          S1 > Parse - SELECT 2
          S1 > Sync
          S1 > Sync
          S1 free
          A < ParseComplete
          A < Ready I
          A < CloseComplete
          A < Ready I
        "#,
    );
}

#[test]
fn a_close_that_is_skipped_closes_nothing() {
    check(
        servers(1),
        r#"
        A> Parse a SELECT 1 | Sync
          S1 lent to A
          S1 > Parse __poolhouse_1 SELECT 1
          S1 > Sync
          S1 free
          A < ParseComplete
          A < Ready I
        A> Bind - nope | Close statement a | Sync
          S1 lent to A
          S1 > Bind - nope
          S1 > Sync
          S1 free
          A < Error 26000 prepared statement "nope" does not exist
          A < Ready I
        A> Bind - a | Execute - | Sync
          S1 lent to A
          S1 > Bind - __poolhouse_1
          S1 > Execute -
          S1 > Sync
          S1 free
          A < BindComplete
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

#[test]
fn an_error_in_a_pipeline_aborts_the_block() {
    check(
        servers(1),
        r#"
        A> Query BEGIN
          A < Complete BEGIN
          A < Ready T
        A> Parse - SELECT 1/0 | Bind - - | Execute - | Sync
          S1 lent to A
          S1 > Parse - BEGIN
          S1 > Bind - -
          S1 > Execute -
          S1 > Close portal -
          S1 > Parse - SELECT 1/0
          S1 > Bind - -
          S1 > Execute -
          S1 > Sync
          A < ParseComplete
          A < Error 22012 division by zero
          A < Ready E
        A> Parse - SELECT 1 | Sync
          S1 > Parse - SELECT 1
          S1 > Sync
          A < Error 25P02 current transaction is aborted, commands ignored until end of transaction block
          A < Ready E
        A> Query ROLLBACK
          S1 > Query ROLLBACK
          S1 free
          A < Complete ROLLBACK
          A < Ready I
        "#,
    );
}

/// Both are sent before the error comes.
#[test]
fn what_a_failed_batch_was_to_prepare_is_prepared_in_the_next() {
    check(
        servers(2),
        r#"
        ! next is S1
        A> Parse a SELECT 1 | Sync
          S1 lent to A
          S1 > Parse __poolhouse_1 SELECT 1
          S1 > Sync
          S1 free
          A < ParseComplete
          A < Ready I
        ! next is S2
        A> Bind - nope | Bind - a | Sync | Bind - a | Execute - | Sync
          S2 lent to A
          S2 > Bind - nope
          S2 > Parse __poolhouse_1 SELECT 1
          S2 > Bind - __poolhouse_1
          S2 > Sync
          S2 > Close statement __poolhouse_1
          S2 > Parse __poolhouse_1 SELECT 1
          S2 > Bind - __poolhouse_1
          S2 > Execute -
          S2 > Sync
          S2 free
          A < Error 26000 prepared statement "nope" does not exist
          A < Ready I
          A < BindComplete
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

#[test]
fn a_simple_query_ends_a_batch() {
    check(
        servers(1),
        r#"
        A> Parse - INSERT INTO t VALUES (1) | Bind - - | Execute - | Query SELECT 1
          S1 lent to A
          S1 > Parse - INSERT INTO t VALUES (1)
          S1 > Bind - -
          S1 > Execute -
          S1 > Query SELECT 1
          S1 free
          A < ParseComplete
          A < BindComplete
          A < Complete INSERT 0 1
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

#[test]
fn a_query_between_an_error_and_its_sync_is_ignored() {
    check(
        servers(1),
        r#"
        A> Bind - nope | Query SELECT 1 | Sync
          S1 lent to A
          S1 > Bind - nope
          S1 > Query SELECT 1
          S1 > Sync
          S1 free
          A < Error 26000 prepared statement "nope" does not exist
          A < Ready I
        ! stop S1
        A> Bind - nope | Flush
          S1 lent to A
        ! go on S1
          S1 > Bind - nope
          S1 > Flush
          A < Error 26000 prepared statement "nope" does not exist
          S1 > Sync
          S1 free
        A> Query SELECT 1
        A> Sync
          A < Ready I
        "#,
    );
}

#[test]
fn a_flush_keeps_the_server() {
    check(
        servers(1),
        r#"
        A> Parse - SELECT 1 | Bind - - | Execute - | Flush
          S1 lent to A
          S1 > Parse - SELECT 1
          S1 > Bind - -
          S1 > Execute -
          S1 > Flush
          A < ParseComplete
          A < BindComplete
          A < Row 10
          A < Complete SELECT 1
        B> Query SELECT 2
        A> Sync
          S1 > Sync
          S1 free
          A < Ready I
          S1 lent to B
          S1 > Query SELECT 2
          S1 free
          B < Columns
          B < Row 20
          B < Complete SELECT 1
          B < Ready I
        "#,
    );
}

#[test]
fn a_portal_is_read_in_parts_within_a_transaction() {
    check(
        servers(1),
        r#"
        A> Query BEGIN
          A < Complete BEGIN
          A < Ready T
        A> Parse - TABLE five | Bind p - | Execute p 2 | Sync
          S1 lent to A
          S1 > Parse - BEGIN
          S1 > Bind - -
          S1 > Execute -
          S1 > Close portal -
          S1 > Parse - TABLE five
          S1 > Bind p -
          S1 > Execute p 2
          S1 > Sync
          A < ParseComplete
          A < BindComplete
          A < Row row 0
          A < Row row 1
          A < Suspended
          A < Ready T
        A> Execute p 2 | Sync
          S1 > Execute p 2
          S1 > Sync
          A < Row row 2
          A < Row row 3
          A < Suspended
          A < Ready T
        A> Execute p 2 | Sync
          S1 > Execute p 2
          S1 > Sync
          A < Row row 4
          A < Complete SELECT 1
          A < Ready T
        A> Query COMMIT
          S1 > Query COMMIT
          S1 free
          A < Complete COMMIT
          A < Ready I
        "#,
    );
}

#[test]
fn a_sync_before_the_end_of_a_copy_is_ignored() {
    check(
        servers(1),
        r#"
        A> Parse - COPY t FROM STDIN | Bind - - | Execute - | Sync
          S1 lent to A
          S1 > Parse - COPY t FROM STDIN
          S1 > Bind - -
          S1 > Execute -
          S1 > Sync
          A < ParseComplete
          A < BindComplete
          A < CopyIn
        A> Sync
        A> CopyData one
          S1 > CopyData one
        A> CopyDone | Sync
          S1 > CopyDone
          S1 > Sync
          S1 free
          A < Complete COPY 1
          A < Ready I
        "#,
    );
}

#[test]
fn a_copy_can_be_sent_blindly() {
    check(
        servers(1),
        r#"
        A> Parse - COPY t FROM STDIN | Bind - - | Execute - | Sync | CopyData one | CopyDone | Sync
          S1 lent to A
          S1 > Parse - COPY t FROM STDIN
          S1 > Bind - -
          S1 > Execute -
          S1 > Sync
          S1 > CopyData one
          S1 > CopyDone
          S1 > Sync
          S1 free
          A < ParseComplete
          A < BindComplete
          A < CopyIn
          A < Complete COPY 1
          A < Ready I
        "#,
    );
}

#[test]
fn what_comes_late_of_a_copy_is_swallowed() {
    check(
        servers(1),
        r#"
        A> Query COPY t FROM STDIN
          S1 lent to A
          S1 > Query COPY t FROM STDIN
          A < CopyIn
        A> CopyData bad
          S1 > CopyData bad
          S1 free
          A < Error 22P04 bad data
          A < Ready I
        A> CopyData one | CopyDone | Query SELECT 1
          S1 lent to A
          S1 > Query SELECT 1
          S1 free
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

#[test]
fn the_end_of_a_copy_that_failed_disturbs_nobody() {
    check(
        servers(1),
        r#"
        A> Parse - COPY t FROM STDIN | Bind - nope | Execute - | Sync | CopyData one | CopyDone | Sync
          S1 lent to A
          S1 > Parse - COPY t FROM STDIN
          S1 > Bind - nope
          S1 > Execute -
          S1 > Sync
          S1 > CopyData one
          S1 > CopyDone
          S1 > Sync
          S1 free
          A < ParseComplete
          A < Error 26000 prepared statement "nope" does not exist
          A < Ready I
          A < Ready I
        "#,
    );
}

#[test]
fn settings_come_before_the_first_statement_and_news_after_them() {
    check(
        {
            let mut world = servers(2);
            world.add_client(&[("application_name", "web"), ("work_mem", "8MB")]);
            world.add_client(&[]);
            world
        },
        r#"
        A> Query SELECT 1
          S1 lent to A
          S1 > Query SELECT pg_catalog.set_config(E'application_name',E'web',false),pg_catalog.set_config(E'work_mem',E'8MB',false)
          S1 > Query SELECT 1
          S1 free
          A < Status application_name=web
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        B> Query SHOW application_name
          S1 lent to B
          S1 > Query RESET "application_name";RESET "work_mem";
          S1 > Query SHOW application_name
          S1 free
          B < Columns
          B < Row  0
          B < Complete SHOW 1
          B < Ready I
        A> Query SHOW work_mem
          S1 lent to A
          S1 > Query SELECT pg_catalog.set_config(E'application_name',E'web',false),pg_catalog.set_config(E'work_mem',E'8MB',false)
          S1 > Query SHOW work_mem
          S1 free
          A < Columns
          A < Row 8MB 0
          A < Complete SHOW 1
          A < Ready I
        "#,
    );
}

#[test]
fn settings_that_may_be_refused_come_alone_and_refuse_the_statement() {
    check(
        {
            let mut world = servers(2);
            world.add_client(&[("role", "gone")]);
            world
        },
        r#"
        ! no roles on S1
        A> Query SELECT 1
          S1 lent to A
          A held
          S1 > Query SELECT pg_catalog.set_config(E'role',E'gone',false)
          S1 closed
          A < Error 22023 role "gone" does not exist
          A < Ready I
        A> Parse - SELECT 1 | Bind - - | Sync
          S1 lent to A
          A held
          S1 > Query SELECT pg_catalog.set_config(E'role',E'gone',false)
          S1 closed
          A < Error 22023 role "gone" does not exist
          A < Ready I
        ! next is S2
        A> Query SELECT 1
          S2 lent to A
          A held
          S2 > Query SELECT pg_catalog.set_config(E'role',E'gone',false)
          S2 > Query SELECT 1
          S2 free
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

#[test]
fn a_session_whose_role_is_gone_can_become_somebody_else() {
    check(
        servers(1),
        r#"
        A> Query SET role = gone
          S1 lent to A
          S1 > Query SET role = gone
          A < Complete SET
          A < Ready I
          S1 > probe role
          S1 free
        B> Query SELECT 1
          S1 lent to B
          B held
          S1 > Query RESET "role";
          S1 > Query SELECT 1
          S1 free
          B < Columns
          B < Row 10
          B < Complete SELECT 1
          B < Ready I
        ! no roles on S1
        A> Query RESET role | Query SELECT 1
          S1 lent to A
          A held
          S1 > Query SELECT pg_catalog.set_config(E'role',E'gone',false)
          S1 closed
          S1 lent to A
          A held
          S1 > Query RESET role
          A < Complete RESET
          A < Ready I
          A held
          S1 > probe role
          S1 free
          S1 lent to A
          S1 > Query SELECT 1
          S1 free
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

#[test]
fn a_set_is_read_back_in_the_servers_spelling() {
    check(
        servers(2),
        r#"
        ! next is S1
        A> Query SET work_mem = '1024kB'
          S1 lent to A
          S1 > Query SET work_mem = '1024kB'
          A < Complete SET
          A < Ready I
          S1 > probe work_mem
          S1 free
        ! next is S2
        A> Query SHOW work_mem
          S2 lent to A
          S2 > Query SELECT pg_catalog.set_config(E'work_mem',E'1MB',false)
          S2 > Query SHOW work_mem
          S2 free
          A < Columns
          A < Row 1MB 0
          A < Complete SHOW 1
          A < Ready I
        "#,
    );
}

#[test]
fn a_first_set_that_is_rolled_back_is_not_carried() {
    check(
        servers(2),
        r#"
        ! next is S1
        A> Query BEGIN | Query SET work_mem = '3MB'
          S1 lent to A
          A < Complete BEGIN
          A < Ready T
          S1 > Parse - BEGIN
          S1 > Bind - -
          S1 > Execute -
          S1 > Close portal -
          S1 > Query SET work_mem = '3MB'
          A < Complete SET
          A < Ready T
        A> Query ROLLBACK
          S1 > Query ROLLBACK
          A < Complete ROLLBACK
          A < Ready I
          S1 > probe work_mem
          S1 free
        ! next is S2
        A> Query SHOW work_mem
          S2 lent to A
          S2 > Query SHOW work_mem
          S2 free
          A < Columns
          A < Row 4MB 0
          A < Complete SHOW 1
          A < Ready I
        "#,
    );
}

#[test]
fn a_set_that_is_rolled_back_never_was() {
    check(
        servers(2),
        r#"
        ! next is S1
        A> Query SET work_mem = '2MB'
          S1 lent to A
          S1 > Query SET work_mem = '2MB'
          A < Complete SET
          A < Ready I
          S1 > probe work_mem
          S1 free
        A> Query BEGIN | Query SET work_mem = '3MB'
          S1 lent to A
          A < Complete BEGIN
          A < Ready T
          S1 > Parse - BEGIN
          S1 > Bind - -
          S1 > Execute -
          S1 > Close portal -
          S1 > Query SET work_mem = '3MB'
          A < Complete SET
          A < Ready T
        A> Query ROLLBACK
          S1 > Query ROLLBACK
          A < Complete ROLLBACK
          A < Ready I
          S1 > probe work_mem
          S1 free
        ! next is S2
        A> Query SHOW work_mem
          S2 lent to A
          S2 > Query SELECT pg_catalog.set_config(E'work_mem',E'2MB',false)
          S2 > Query SHOW work_mem
          S2 free
          A < Columns
          A < Row 2MB 0
          A < Complete SHOW 1
          A < Ready I
        "#,
    );
}

#[test]
fn a_reset_returns_to_the_value_of_the_startup() {
    check(
        {
            let mut world = servers(2);
            world.add_client(&[("work_mem", "8MB")]);
            world
        },
        r#"
        ! next is S1
        A> Query SET work_mem = '2MB'
          S1 lent to A
          S1 > Query SELECT pg_catalog.set_config(E'work_mem',E'8MB',false)
          S1 > Query SET work_mem = '2MB'
          A < Complete SET
          A < Ready I
          S1 > probe work_mem
          S1 free
        A> Query RESET work_mem
          S1 lent to A
          S1 > Query RESET work_mem
          A < Complete RESET
          S1 > Query SELECT pg_catalog.set_config(E'work_mem',E'8MB',false) FROM pg_catalog.pg_settings WHERE source<>'session' AND pg_catalog.lower(name)=E'work_mem';
          A < Ready I
          S1 > probe work_mem
          S1 free
        ! next is S2
        A> Query SHOW work_mem
          S2 lent to A
          S2 > Query SELECT pg_catalog.set_config(E'work_mem',E'8MB',false)
          S2 > Query SHOW work_mem
          S2 free
          A < Columns
          A < Row 8MB 0
          A < Complete SHOW 1
          A < Ready I
        "#,
    );
}

/// The value stays with its client, and does not stay on the server.
#[test]
fn a_reset_that_is_skipped_resets_nothing() {
    check(
        servers(1),
        r#"
        A> Query SET work_mem = '2MB' | Bind - nope | Query RESET work_mem | Sync
          S1 lent to A
          S1 > Query SET work_mem = '2MB'
          S1 > Bind - nope
          S1 > Query RESET work_mem
          S1 > Sync
          A < Complete SET
          A < Ready I
          A < Error 26000 prepared statement "nope" does not exist
          A < Ready I
          S1 > probe work_mem
          S1 free
        B> Query SHOW work_mem
          S1 lent to B
          S1 > Query RESET "work_mem";
          S1 > Query SHOW work_mem
          S1 free
          B < Columns
          B < Row 4MB 0
          B < Complete SHOW 1
          B < Ready I
        A> Query SHOW work_mem
          S1 lent to A
          S1 > Query SELECT pg_catalog.set_config(E'work_mem',E'2MB',false)
          S1 > Query SHOW work_mem
          S1 free
          A < Columns
          A < Row 2MB 0
          A < Complete SHOW 1
          A < Ready I
        "#,
    );
}

/// Custom settings are listed nowhere.
#[test]
fn a_setting_of_unknown_name_keeps_the_server() {
    check(
        {
            let mut world = servers(2);
            world.add_client(&[]);
            world
        },
        r#"
        A> Query SELECT set_config('app.' \|\| 'x','secret',false)
          S1 lent to A
          S1 > Query SELECT set_config('app.' || 'x','secret',false)
          A < Columns
          A < Row set
          A < Complete SELECT 1
          A < Ready I
          S1 > probe role everything
        A> Query SHOW app.x
          S1 > Query SHOW app.x
          A < Columns
          A < Row secret 0
          A < Complete SHOW 1
          A < Ready I
        "#,
    );
}

#[test]
fn temporary_tables_and_listening_keep_the_server_until_they_are_gone() {
    check(
        servers(2),
        r#"
        A> Query CREATE TEMP TABLE tmp (a int)
          S1 lent to A
          S1 > Query CREATE TEMP TABLE tmp (a int)
          A < Complete CREATE TABLE
          A < Ready I
          S1 > probe role everything
        A> Query LISTEN c
          S1 > Query LISTEN c
          A < Complete LISTEN
          A < Ready I
          S1 > probe role everything
        B> Query SELECT 1
          S2 lent to B
          S2 > Query SELECT 1
          S2 free
          B < Columns
          B < Row 10
          B < Complete SELECT 1
          B < Ready I
        A> Query DISCARD ALL
          S1 > Query DISCARD ALL
          A < Complete DISCARD ALL
          A < Ready I
          S1 > probe role everything
          S1 free
        ! next is S2
        A> Query SELECT 1
          S2 lent to A
          S2 > Query SELECT 1
          S2 free
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

/// What follows in the pipeline waits for it.
#[test]
fn after_discard_all_names_are_free() {
    check(
        servers(1),
        r#"
        A> Parse a SELECT 1 | Sync
          S1 lent to A
          S1 > Parse __poolhouse_1 SELECT 1
          S1 > Sync
          S1 free
          A < ParseComplete
          A < Ready I
        A> Query DISCARD ALL | Parse a SELECT 1 | Bind - a | Execute - | Sync
          S1 lent to A
          A held
          S1 > Query DISCARD ALL
          A < Complete DISCARD ALL
          A < Ready I
          A held
          S1 > probe role everything
          S1 free
          S1 lent to A
          S1 > Parse __poolhouse_1 SELECT 1
          S1 > Bind - __poolhouse_1
          S1 > Execute -
          S1 > Sync
          S1 free
          A < ParseComplete
          A < BindComplete
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

/// What a batch does to names is believed when the server has answered it: a name that it has freed is free behind that.
#[test]
fn names_are_free_behind_what_takes_them_away_in_the_same_batch() {
    check(
        servers(1),
        r#"
        A> Parse a SELECT 1 | Sync
          S1 lent to A
          S1 > Parse __poolhouse_1 SELECT 1
          S1 > Sync
          S1 free
          A < ParseComplete
          A < Ready I
        A> Parse - DEALLOCATE ALL | Bind - - | Execute - | Parse a SELECT 2 | Sync
          S1 lent to A
          A held
          S1 > Parse - DEALLOCATE ALL
          S1 > Bind - -
          S1 > Execute -
          S1 > Flush
          A < ParseComplete
          A < BindComplete
          A < Complete DEALLOCATE ALL
          S1 > Close statement __poolhouse_3
          S1 > Parse __poolhouse_3 SELECT 2
          S1 > Sync
          S1 free
          A < ParseComplete
          A < Ready I
        A> Bind - a | Execute - | Sync
          S1 lent to A
          S1 > Bind - __poolhouse_3
          S1 > Execute -
          S1 > Sync
          S1 free
          A < BindComplete
          A < Row 20
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

/// The server has skipped it, and the statement is there as before.
#[test]
fn a_deallocate_behind_an_error_takes_nothing_away() {
    check(
        servers(1),
        r#"
        A> Parse a SELECT 1 | Sync
          S1 lent to A
          S1 > Parse __poolhouse_1 SELECT 1
          S1 > Sync
          S1 free
          A < ParseComplete
          A < Ready I
        A> Bind - nosuch | Parse - DEALLOCATE a | Bind - - | Execute - | Sync
          S1 lent to A
          S1 > Bind - nosuch
          S1 > Close statement a
          S1 > Parse a SELECT 1
          S1 > Parse - DEALLOCATE a
          S1 > Close statement a
          S1 > Parse a SELECT 1
          S1 > Bind - -
          S1 > Execute -
          S1 > Sync
          S1 free
          A < Error 26000 prepared statement "nosuch" does not exist
          A < Ready I
        A> Bind - a | Execute - | Sync
          S1 lent to A
          S1 > Bind - __poolhouse_1
          S1 > Execute -
          S1 > Sync
          S1 free
          A < BindComplete
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

#[test]
fn deallocate_of_a_name_is_answered_without_the_server() {
    check(
        servers(1),
        r#"
        A> Parse a SELECT 1 | Sync
          S1 lent to A
          S1 > Parse __poolhouse_1 SELECT 1
          S1 > Sync
          S1 free
          A < ParseComplete
          A < Ready I
        A> Query DEALLOCATE a
          A < Complete DEALLOCATE
          A < Ready I
        A> Bind - a | Sync
          S1 lent to A
          S1 > Bind - a
          S1 > Sync
          S1 free
          A < Error 26000 prepared statement "a" does not exist
          A < Ready I
        "#,
    );
}

#[test]
fn the_least_recently_used_statement_makes_room() {
    check(
        World::new(1, 0, 2, Mode::Transaction),
        r#"
        A> Parse a SELECT 1 | Parse b SELECT 2 | Sync
          S1 lent to A
          S1 > Parse __poolhouse_1 SELECT 1
          S1 > Parse __poolhouse_2 SELECT 2
          S1 > Sync
          S1 free
          A < ParseComplete
          A < ParseComplete
          A < Ready I
        A> Bind - a | Sync
          S1 lent to A
          S1 > Bind - __poolhouse_1
          S1 > Sync
          S1 free
          A < BindComplete
          A < Ready I
        A> Parse c TABLE five | Sync
          S1 lent to A
          S1 > Close statement __poolhouse_1
          S1 > Parse __poolhouse_3 TABLE five
          S1 > Sync
          S1 free
          A < ParseComplete
          A < Ready I
        A> Bind - a | Bind - b | Execute - | Sync
          S1 lent to A
          S1 > Close statement __poolhouse_2
          S1 > Parse __poolhouse_1 SELECT 1
          S1 > Bind - __poolhouse_1
          S1 > Close statement __poolhouse_3
          S1 > Parse __poolhouse_2 SELECT 2
          S1 > Bind - __poolhouse_2
          S1 > Execute -
          S1 > Sync
          S1 free
          A < BindComplete
          A < BindComplete
          A < Row 20
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

/// S2 is a replica.
#[test]
fn a_batch_reads_elsewhere_only_as_a_whole() {
    check(
        World::new(2, 1, 100, Mode::Transaction),
        r#"
        A> Parse - SELECT 1 | Bind - - | Execute - | Sync
          S2 lent to A
          S2 > Parse - SELECT 1
          S2 > Bind - -
          S2 > Execute -
          S2 > Sync
          S2 free
          A < ParseComplete
          A < BindComplete
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        A> Parse - SELECT 1 | Bind - - | Execute - | Parse - INSERT INTO t VALUES (1) | Bind - - | Execute - | Sync
          S1 lent to A
          S1 > Parse - SELECT 1
          S1 > Bind - -
          S1 > Execute -
          S1 > Parse - INSERT INTO t VALUES (1)
          S1 > Bind - -
          S1 > Execute -
          S1 > Sync
          S1 free
          A < ParseComplete
          A < BindComplete
          A < Row 10
          A < Complete SELECT 1
          A < ParseComplete
          A < BindComplete
          A < Complete INSERT 0 1
          A < Ready I
        A> Parse - SELECT 1 | Bind - - | Execute - | Sync | Parse - SELECT 1 | Bind - - | Execute - | Parse - INSERT INTO t VALUES (1) | Bind - - | Execute - | Sync
          S2 lent to A
          A held
          S2 > Parse - SELECT 1
          S2 > Bind - -
          S2 > Execute -
          S2 > Sync
          S2 free
          A < ParseComplete
          A < BindComplete
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
          S1 lent to A
          S1 > Parse - SELECT 1
          S1 > Bind - -
          S1 > Execute -
          S1 > Parse - INSERT INTO t VALUES (1)
          S1 > Bind - -
          S1 > Execute -
          S1 > Sync
          S1 free
          A < ParseComplete
          A < BindComplete
          A < Row 10
          A < Complete SELECT 1
          A < ParseComplete
          A < BindComplete
          A < Complete INSERT 0 1
          A < Ready I
        "#,
    );
}

#[test]
fn a_server_that_is_lost_while_nothing_runs_is_not_noticed() {
    check(
        servers(1),
        r#"
        A> Query SELECT 1
          S1 lent to A
          S1 > Query SELECT 1
          S1 free
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        ! lose S1
          S1 lost
        A> Query SELECT 1
          S1 lent to A
          S1 > Query SELECT 1
          S1 free
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

#[test]
fn a_server_lost_in_a_transaction_is_told_at_the_next_message() {
    check(
        servers(1),
        r#"
        A> Query BEGIN | Query INSERT INTO t VALUES (1)
          S1 lent to A
          A < Complete BEGIN
          A < Ready T
          S1 > Parse - BEGIN
          S1 > Bind - -
          S1 > Execute -
          S1 > Close portal -
          S1 > Query INSERT INTO t VALUES (1)
          A < Complete INSERT 0 1
          A < Ready T
        ! lose S1
          S1 lost
        A> Query SELECT 1
          A < Error 08006 the connection to the server n1 was lost while a statement or transaction was under way (The transaction was not committed.)
          A < Ready I
        A> Query SELECT 2
          S1 lent to A
          S1 > Query SELECT 2
          S1 free
          A < Columns
          A < Row 20
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

/// The client must not take the batch for committed.
#[test]
fn a_server_lost_before_the_sync_of_a_batch_is_told_at_the_sync() {
    check(
        servers(1),
        r#"
        A> Parse - INSERT INTO t VALUES (1) | Bind - - | Execute - | Flush
          S1 lent to A
          S1 > Parse - INSERT INTO t VALUES (1)
          S1 > Bind - -
          S1 > Execute -
          S1 > Flush
          A < ParseComplete
          A < BindComplete
          A < Complete INSERT 0 1
        ! lose S1
          S1 lost
        A> Sync
          A < Error 08006 the connection to the server n1 was lost while a statement or transaction was under way (The transaction may or may not have been committed.)
          A < Ready I
        A> Query SELECT 1
          S1 lent to A
          S1 > Query SELECT 1
          S1 free
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

#[test]
fn a_server_lost_under_three_syncs_answers_each() {
    check(
        servers(1),
        r#"
        ! stop S1
        A> Parse - SELECT 1 | Bind - - | Execute - | Sync | Parse - INSERT INTO t VALUES (1) | Bind - - | Execute - | Sync | Bind - nope | Query SELECT 1 | Sync
          S1 lent to A
        ! lose S1
          S1 lost
          A < Error 08006 the connection to the server n1 was lost while a statement or transaction was under way (The transaction may or may not have been committed.)
          A < Ready I
          A < Error 08006 the connection to the server n1 was lost while a statement or transaction was under way (The transaction may or may not have been committed.)
          A < Ready I
          A < Error 08006 the connection to the server n1 was lost while a statement or transaction was under way (The transaction may or may not have been committed.)
          A < Ready I
        A> Query SELECT 1
          S1 lent to A
          S1 > Query SELECT 1
          S1 free
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

#[test]
fn a_server_lost_after_an_error_waits_for_the_sync() {
    check(
        servers(1),
        r#"
        A> Query BEGIN | Bind - nope
          S1 lent to A
          A < Complete BEGIN
          A < Ready T
          S1 > Parse - BEGIN
          S1 > Bind - -
          S1 > Execute -
          S1 > Close portal -
          S1 > Bind - nope
          A < Error 26000 prepared statement "nope" does not exist
        ! lose S1
          S1 lost
        A> Query SELECT 1
        A> Sync
          A < Ready I
        A> Query SELECT 1
          S1 lent to A
          S1 > Query SELECT 1
          S1 free
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}

#[test]
fn a_server_lost_in_the_middle_of_a_row_ends_the_client() {
    check(
        servers(1),
        r#"
        ! stop S1
        A> Query TABLE five
          S1 lent to A
        ! cut S1
          S1 > Query TABLE five
          A < Columns
          S1 lost
          A ends
        A> Query SELECT 1
        "#,
    );
}

#[test]
fn a_server_lost_with_a_temporary_table_ends_the_client() {
    check(
        servers(1),
        r#"
        A> Query CREATE TEMP TABLE tmp (a int)
          S1 lent to A
          S1 > Query CREATE TEMP TABLE tmp (a int)
          A < Complete CREATE TABLE
          A < Ready I
          S1 > probe role everything
        ! lose S1
          S1 lost
          A ends
          A < Error FATAL 08006 the connection to the server n1 was lost (No statement or transaction was under way.)
        "#,
    );
}

#[test]
fn statement_mode_has_no_blocks() {
    check(
        World::new(1, 0, 100, Mode::Statement),
        r#"
        A> Query BEGIN
          A < Error 0A000 transaction blocks are not possible in statement mode
          A < Ready I
        A> Parse - BEGIN | Bind - - | Execute - | Sync
          A < Error 0A000 transaction blocks are not possible in statement mode
          A < Ready I
        A> Query SELECT 1
          S1 lent to A
          S1 > Query SELECT 1
          S1 free
          A < Columns
          A < Row 10
          A < Complete SELECT 1
          A < Ready I
        "#,
    );
}
