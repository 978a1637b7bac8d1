//! Transcripts: what a client sends, and the tags of what comes back.

use proptest::prelude::*;

use super::*;
use crate::admin::table::row;
use poolhouse_core::wire::{error::ErrorFields, header};

fn conversation(may_change: bool) -> Conversation {
    let identity = Identity {
        user: "admin".into(),
        database: "pgbouncer".into(),
        process: 7,
        may_change,
        server_version: "1.0".into(),
        version: "Poolhouse 1.0".into(),
    };
    Conversation::new(identity, [("application_name".to_owned(), "test".to_owned())])
}

/// One message, and all that is wanted for it: tables have two rows, and actions succeed but for KILL_CLIENT.
fn say(conversation: &mut Conversation, tag: u8, body: &[u8], out: &mut Vec<u8>) -> bool {
    let mut next = conversation.on_message(tag, body, out);
    loop {
        next = match next {
            Next::Message => return true,
            Next::End => return false,
            Next::Run(Wanted::Table(show)) => {
                let mut table = show.table();
                for number in 0..2_u64 {
                    let value = |column: &Column| {
                        if column.kind.is_number() { Value::from(number) } else { number.to_string().into() }
                    };
                    table.rows.push(table.columns.iter().map(value).collect());
                }
                conversation.resume(Ok(CommandResult::Table(table)), out)
            }
            Next::Run(Wanted::Explain(_)) => conversation.resume(Ok(CommandResult::Table(route_table())), out),
            Next::Run(Wanted::Act(OperatorAction::KillClient(_))) => {
                conversation.resume(Err(Report::error(SqlState::UNDEFINED_OBJECT, "no such client")), out)
            }
            Next::Run(Wanted::Act(_)) => conversation.resume(Ok(CommandResult::Done), out),
        };
    }
}

/// The tags of messages, with the tag of CommandComplete, the code of an error and the status behind them.
fn shown(mut bytes: &[u8]) -> String {
    let mut shown = Vec::new();
    while let Some(head) = header(bytes).unwrap() {
        let (message, rest) = bytes.split_at(head.message());
        let body = &message[5..];
        let text = || String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(body)).into_owned();
        shown.push(match head.tag {
            b'C' => format!("C={}", text()),
            b'E' => format!("E={}", ErrorFields::read(body).code()),
            b'Z' => format!("Z{}", text()),
            tag => char::from(tag).to_string(),
        });
        bytes = rest;
    }
    shown.join(" ")
}

fn query(conversation: &mut Conversation, sql: &str) -> String {
    let mut out = Vec::new();
    assert!(say(conversation, b'Q', format!("{sql}\0").as_bytes(), &mut out));
    shown(&out)
}

/// Messages of the extended protocol: `P name sql`, `B portal statement`, `D kind name`, `E portal limit`, `C kind name`, `S`,
/// with `-` for an empty name.
fn batch(conversation: &mut Conversation, messages: &[&str]) -> String {
    let mut out = Vec::new();
    for message in messages {
        let mut parts = message.splitn(3, ' ');
        let mut part = || parts.next().map(|part| if part == "-" { "" } else { part }).unwrap_or_default();
        let (tag, one, two) = (part().as_bytes()[0], part(), part());
        let body = match tag {
            b'P' => format!("{one}\0{two}\0\0\0"),
            b'B' => format!("{one}\0{two}\0\0\0\0\0\0\0"),
            b'D' | b'C' => format!("{one}{two}\0"),
            b'E' => format!("{one}\0\0\0\0{}", char::from(two.parse::<u8>().unwrap_or(0))),
            _ => String::new(),
        };
        assert!(say(conversation, tag, body.as_bytes(), &mut out));
    }
    shown(&out)
}

#[test]
fn simple_queries() {
    let mut client = conversation(true);
    for (sql, expected) in [
        ("SHOW POOLS", "T D D C=SHOW ZI"),
        ("SHOW POOLS WHERE cl_active = 1; SHOW VERSION", "T D C=SHOW T D D C=SHOW ZI"),
        ("", "I ZI"),
        (" ; -- nothing", "I ZI"),
        ("SHOW HELP", "N C=SHOW ZI"),
        ("PAUSE; RESUME", "C=PAUSE C=RESUME ZI"),
        ("KILL_CLIENT 3; PAUSE", "E=42704 ZI"),
        ("nonsense", "E=42601 ZI"),
        ("SHOW VERSION; nonsense; PAUSE", "T D D C=SHOW E=42601 ZI"),
        ("SHOW POOLS WHERE x = 1", "E=42703 ZI"),
        ("SET client_encoding = 'UTF8'", "C=SET ZI"),
        ("SET client_encoding = 'LATIN1'", "E=0A000 ZI"),
        ("SET application_name = 'x'", "S C=SET ZI"),
        ("SET server_version = '1'", "E=55P02 ZI"),
        ("SHOW application_name", "T D C=SHOW ZI"),
        ("SELECT 1, current_user", "T D C=SELECT 1 ZI"),
        ("SELECT current_setting('nothing')", "E=42704 ZI"),
    ] {
        assert_eq!(query(&mut client, sql), expected, "{sql}");
    }
    let mut out = Vec::new();
    assert!(say(&mut client, b'Q', b"SHOW \xff\0", &mut out));
    assert_eq!(shown(&out), "E=22021 ZI");
    assert!(!say(&mut client, b'X', b"", &mut out));
}

#[test]
fn transactions_are_played() {
    let mut client = conversation(true);
    for (sql, expected) in [
        ("COMMIT", "N C=COMMIT ZI"),
        ("SAVEPOINT a", "E=25P01 ZI"),
        ("BEGIN", "C=BEGIN ZT"),
        ("BEGIN", "N C=BEGIN ZT"),
        ("SAVEPOINT a", "C=SAVEPOINT ZT"),
        ("nonsense", "E=42601 ZE"),
        ("SHOW POOLS", "E=25P02 ZE"),
        ("ROLLBACK TO a", "C=ROLLBACK ZT"),
        ("SHOW POOLS", "T D D C=SHOW ZT"),
        ("nonsense", "E=42601 ZE"),
        ("COMMIT", "C=ROLLBACK ZI"),
        ("BEGIN; SHOW POOLS; COMMIT", "C=BEGIN T D D C=SHOW C=COMMIT ZI"),
    ] {
        assert_eq!(query(&mut client, sql), expected, "{sql}");
    }
}

#[test]
fn who_may_only_look_changes_nothing() {
    let mut client = conversation(false);
    for sql in ["PAUSE", "KILL_CLIENT 1", "SHUTDOWN", "RELOAD", "SET log.level = 'debug'", "SHOW FDS"] {
        assert_eq!(query(&mut client, sql), "E=42501 ZI", "{sql}");
        let run = batch(&mut client, &[&format!("P - {sql}"), "B - -", "E - 0", "S"]);
        assert_eq!(run, "1 2 E=42501 ZI", "{sql}");
    }
    assert_eq!(query(&mut client, "SHOW POOLS"), "T D D C=SHOW ZI");
}

#[test]
fn the_extended_protocol() {
    let mut client = conversation(true);
    for (messages, expected) in [
        (&["P - SHOW POOLS", "B - -", "D P", "E - 0", "S"][..], "1 2 T D D C=SHOW ZI"),
        (&["P a SHOW POOLS WHERE cl_active = 1", "D S a", "S"], "1 t T ZI"),
        (&["P a SHOW VERSION", "S"], "E=42P05 ZI"),
        (&["B - a", "E - 1", "E - 1", "S"], "2 D C=SHOW C=SHOW ZI"),
        (&["P - SHOW POOLS", "B p -", "E p 1", "E p 1", "E p 1", "S"], "1 2 D s D C=SHOW C=SHOW ZI"),
        (&["E p 0", "S"], "E=34000 ZI"),
        (&["C S a", "B - a", "S"], "3 E=26000 ZI"),
        (&["C S unknown", "C P unknown", "S"], "3 3 ZI"),
        (&["P - PAUSE", "D S", "B - -", "D P", "E - 0", "S"], "1 t n 2 n C=PAUSE ZI"),
        (&["P - PAUSE", "B - -", "E - 0", "E - 0", "S"], "1 2 C=PAUSE E=55000 ZI"),
        (&["P - ", "B - -", "D P", "E - 0", "S"], "1 2 n I ZI"),
        (&["P - SHOW POOLS; SHOW STATS", "B - -", "S"], "E=42601 ZI"),
        (&["P - SHOW POOLS WHERE x = 1", "S"], "E=42703 ZI"),
        (&["P - nonsense", "B - -", "E - 0", "S", "P - SHOW VERSION", "S"], "E=42601 ZI 1 ZI"),
        (&["P - SHOW POOLS WHERE cl_active = $1", "D S", "B - -", "S"], "1 t T E=08P01 ZI"),
        (&["P - KILL_CLIENT 3", "B - -", "E - 0", "E - 0", "S"], "1 2 E=42704 ZI"),
        (&["P - BEGIN", "B - -", "E - 0", "P - nonsense", "S"], "1 2 C=BEGIN E=42601 ZE"),
        (&["P - ROLLBACK", "B - -", "E - 0", "S"], "1 2 C=ROLLBACK ZI"),
        (&["H", "S"], "ZI"),
    ] {
        assert_eq!(batch(&mut client, messages), expected, "{messages:?}");
    }
    assert_eq!(batch(&mut client, &["P b SHOW VERSION", "S"]), "1 ZI");
    assert_eq!(query(&mut client, "DEALLOCATE b; DEALLOCATE ALL"), "C=DEALLOCATE C=DEALLOCATE ALL ZI");
    assert_eq!(query(&mut client, "DEALLOCATE b"), "E=26000 ZI");
}

#[test]
fn parameters_are_taken_in_their_formats() {
    let mut client = conversation(true);
    let mut out = Vec::new();
    // int4 and text.
    let parse = b"\0SHOW POOLS WHERE cl_active = $1 AND database = $2\0\0\x02\0\0\0\x17\0\0\0\x19";
    assert!(say(&mut client, b'P', parse, &mut out));
    let bind = b"\0\0\0\x02\0\x01\0\0\0\x02\0\0\0\x04\0\0\0\x01\0\0\0\x011\0\x01\0\x01";
    assert!(say(&mut client, b'B', bind, &mut out));
    assert!(say(&mut client, b'E', b"\0\0\0\0\0", &mut out));
    assert_eq!(shown(&out), "1 2 D C=SHOW");
    for (value, binary, oid, expected) in [
        (&b"12"[..], false, 23, Some("12")),
        (b"\0\x0c", true, 21, Some("12")),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff", true, 20, Some("-1")),
        (b"\x3f\xf8\0\0\0\0\0\0", true, 701, Some("1.5")),
        ("ü".as_bytes(), true, 25, Some("ü")),
        (b"\xff", false, 25, None),
        (b"\0", true, 23, None),
        (b"\0\0\0\0", true, 1700, None),
    ] {
        assert_eq!(text(value, binary, oid).ok().as_deref(), expected, "{value:?} {oid}");
    }
}

#[test]
fn a_client_is_told_of_the_settings() {
    let mut out = Vec::new();
    conversation(true).greet(&mut out);
    let names = shown(&out);
    assert_eq!(names, ["S"; REPORTED.len()].join(" "));
    assert_eq!(row!["a", 1_u64], [Value::Text("a".into()), Value::Int(1)]);
}

fn message() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let sql = prop_oneof![
        Just("SHOW POOLS"),
        Just("PAUSE"),
        Just("BEGIN"),
        Just("COMMIT"),
        Just("nonsense"),
        Just(""),
        Just("SHOW VERSION; SHOW STATE"),
        Just("SHOW POOLS WHERE database = $1"),
    ];
    let named = prop_oneof![Just(""), Just("a")];
    prop_oneof![
        sql.clone().prop_map(|sql| (b'Q', format!("{sql}\0").into_bytes())),
        (named.clone(), sql).prop_map(|(name, sql)| (b'P', format!("{name}\0{sql}\0\0\0").into_bytes())),
        (named.clone(), named.clone())
            .prop_map(|(portal, name)| (b'B', format!("{portal}\0{name}\0\0\0\0\0\0\0").into_bytes())),
        (named.clone(), prop_oneof![Just('S'), Just('P')])
            .prop_map(|(name, kind)| (b'D', format!("{kind}{name}\0").into_bytes())),
        (named.clone(), 0_u8..3).prop_map(|(name, limit)| { (b'E', [name.as_bytes(), &[0, 0, 0, 0, limit]].concat()) }),
        named.prop_map(|name| (b'C', format!("S{name}\0").into_bytes())),
        Just((b'S', Vec::new())),
        Just((b'H', Vec::new())),
        (prop::sample::select(&b"QPBDECSHFdcf"[..]), prop::collection::vec(any::<u8>(), 0..20)),
    ]
}

proptest! {
    /// Whatever a client sends, all that it gets are whole messages, and each Query and each Sync ends in one
    /// ReadyForQuery; but for a Query after an error in a batch, which is skipped.
    #[test]
    fn every_batch_is_answered(messages in prop::collection::vec(message(), 0..30)) {
        let mut client = conversation(true);
        for (tag, body) in messages {
            let skips = client.skipping && tag != b'S';
            let mut out = Vec::new();
            prop_assert!(say(&mut client, tag, &body, &mut out));
            let (mut rest, mut ready) = (&out[..], 0);
            while let Some(head) = header(rest).unwrap() {
                ready += usize::from(head.tag == b'Z');
                rest = &rest[head.message()..];
            }
            prop_assert!(rest.is_empty());
            prop_assert_eq!(ready, usize::from(matches!(tag, b'Q' | b'S') && !skips));
            prop_assert!(client.running.is_none());
        }
    }
}
