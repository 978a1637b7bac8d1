//! Messages of a test script: their bytes, their spelling in a transcript, and how replies and what reaches a server
//! are told in one.

use crate::wire::{ErrorFields, frame::split_text, header, request::begin};

/// What a client of a test sends. Names are empty for the unnamed statement and portal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Query(String),
    Parse(String, String),
    /// Portal and statement.
    Bind(String, String),
    DescribeStatement(String),
    DescribePortal(String),
    /// Portal and row limit; 0 is none.
    Execute(String, u32),
    CloseStatement(String),
    ClosePortal(String),
    Sync,
    Flush,
    CopyData(String),
    CopyDone,
    CopyFail,
    FunctionCall,
    Terminate,
    /// A message of this type that a server cannot read; what is in front of the mistake names the unnamed.
    Malformed(u8),
}

impl Message {
    /// From its spelling in a transcript; `-` is the empty name.
    pub fn read(text: &str) -> Message {
        let name = |word: &str| if word == "-" { String::new() } else { word.to_owned() };
        let (verb, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
        match (verb, first) {
            ("Query", _) => Message::Query(rest.to_owned()),
            ("Parse", _) => Message::Parse(name(first), second.to_owned()),
            ("Bind", _) => Message::Bind(name(first), name(second)),
            ("Describe", "statement") => Message::DescribeStatement(name(second)),
            ("Describe", "portal") => Message::DescribePortal(name(second)),
            ("Execute", _) => Message::Execute(name(first), second.parse().unwrap_or(0)),
            ("Close", "statement") => Message::CloseStatement(name(second)),
            ("Close", "portal") => Message::ClosePortal(name(second)),
            ("Sync", _) => Message::Sync,
            ("Flush", _) => Message::Flush,
            ("CopyData", _) => Message::CopyData(rest.to_owned()),
            ("CopyDone", _) => Message::CopyDone,
            ("CopyFail", _) => Message::CopyFail,
            ("FunctionCall", _) => Message::FunctionCall,
            ("Terminate", _) => Message::Terminate,
            _ => panic!("no such message: {text}"),
        }
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        let (tag, parts): (u8, Vec<&[u8]>) = match self {
            Message::Query(sql) => (b'Q', vec![sql.as_bytes(), b"\0"]),
            Message::Parse(name, sql) => (b'P', vec![name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"]),
            Message::Bind(portal, name) => (b'B', vec![portal.as_bytes(), b"\0", name.as_bytes(), b"\0\0\0\0\0\0\0"]),
            Message::DescribeStatement(name) => (b'D', vec![b"S", name.as_bytes(), b"\0"]),
            Message::DescribePortal(name) => (b'D', vec![b"P", name.as_bytes(), b"\0"]),
            Message::Execute(portal, limit) => {
                frame(b'E', &[portal.as_bytes(), b"\0", &limit.to_be_bytes()], out);
                return;
            }
            Message::CloseStatement(name) => (b'C', vec![b"S", name.as_bytes(), b"\0"]),
            Message::ClosePortal(name) => (b'C', vec![b"P", name.as_bytes(), b"\0"]),
            Message::Sync => (b'S', vec![]),
            Message::Flush => (b'H', vec![]),
            Message::CopyData(text) => (b'd', vec![text.as_bytes()]),
            Message::CopyDone => (b'c', vec![]),
            Message::CopyFail => (b'f', vec![b"given up\0"]),
            Message::FunctionCall => (b'F', vec![b"\0\0\x06\x3e\0\0\0\0\0\0"]),
            Message::Terminate => (b'X', vec![]),
            Message::Malformed(b'B') => (b'B', vec![b"\0\0\xff"]),
            Message::Malformed(tag) => (*tag, vec![b"\xff"]),
        };
        frame(tag, &parts, out);
    }
}

/// Writes one message.
pub fn frame(tag: u8, parts: &[&[u8]], out: &mut Vec<u8>) {
    begin(tag, parts.iter().map(|part| part.len()).sum(), out);
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Takes the whole messages off the front of `bytes`.
pub fn take_messages(bytes: &mut Vec<u8>) -> Vec<(u8, Vec<u8>)> {
    let mut messages = Vec::new();
    while let Ok(Some(head)) = header(bytes) {
        if bytes.len() < head.message() {
            break;
        }
        messages.push((head.tag, bytes[5..head.message()].to_vec()));
        bytes.drain(..head.message());
    }
    messages
}

/// Texts up to NULs, and what is left.
pub fn texts<const N: usize>(mut body: &[u8]) -> ([String; N], &[u8]) {
    let texts = std::array::from_fn(|_| {
        let (text, rest) = split_text(body).unwrap_or((body, b""));
        body = rest;
        String::from_utf8_lossy(text).into_owned()
    });
    (texts, body)
}

/// How a client's message is told.
pub fn tell_request(tag: u8, body: &[u8]) -> String {
    let name = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let kind = if body.first() == Some(&b'S') { "statement" } else { "portal" };
    match tag {
        b'Q' => {
            let ([sql], _) = texts(body);
            let everything = if sql.contains("source='session'") { " everything" } else { "" };
            match sql.strip_prefix("SELECT 's'") {
                Some(_) => {
                    format!("probe {}{everything}", super::model::literals(&sql, "current_setting(E'").join(" "))
                }
                None => format!("Query {sql}"),
            }
        }
        b'P' => {
            let ([statement, sql], _) = texts(body);
            format!("Parse {} {sql}", name(&statement))
        }
        b'B' => {
            let ([portal, statement], _) = texts(body);
            format!("Bind {} {}", name(&portal), name(&statement))
        }
        b'D' => format!("Describe {kind} {}", name(&texts::<1>(&body[1..]).0[0])),
        b'C' => format!("Close {kind} {}", name(&texts::<1>(&body[1..]).0[0])),
        b'E' => {
            let ([portal], limit) = texts(body);
            let limit = limit.try_into().map_or(0, u32::from_be_bytes);
            if limit == 0 { format!("Execute {}", name(&portal)) } else { format!("Execute {} {limit}", name(&portal)) }
        }
        b'S' => "Sync".into(),
        b'H' => "Flush".into(),
        b'd' => format!("CopyData {}", String::from_utf8_lossy(body)),
        b'c' => "CopyDone".into(),
        b'f' => "CopyFail".into(),
        tag => format!("message {}", char::from(tag)),
    }
}

/// How a server's message is told.
pub fn tell_reply(tag: u8, body: &[u8]) -> String {
    let text = || texts::<1>(body).0[0].clone();
    match tag {
        b'Z' => format!("Ready {}", String::from_utf8_lossy(body)),
        b'C' => format!("Complete {}", text()),
        b'E' => {
            let fields = ErrorFields::read(body);
            let fatal = if fields.is_fatal() { "FATAL " } else { "" };
            let detail = fields.text(b'D').map(|detail| format!(" ({detail})")).unwrap_or_default();
            format!("Error {fatal}{} {}{detail}", fields.code(), fields.message())
        }
        b'N' => format!("Notice {}", ErrorFields::read(body).message()),
        b'S' => {
            let ([name, value], _) = texts(body);
            format!("Status {name}={value}")
        }
        b'D' => {
            let columns = crate::wire::reply::data_row(body).unwrap_or_default();
            let columns = columns.iter().map(|column| column.map_or("NULL".into(), String::from_utf8_lossy));
            format!("Row {}", columns.collect::<Vec<_>>().join(","))
        }
        b'd' => format!("CopyData {}", String::from_utf8_lossy(body)),
        b'1' => "ParseComplete".into(),
        b'2' => "BindComplete".into(),
        b'3' => "CloseComplete".into(),
        b'T' => "Columns".into(),
        b't' => "Parameters".into(),
        b'n' => "NoData".into(),
        b's' => "Suspended".into(),
        b'I' => "EmptyQuery".into(),
        b'G' => "CopyIn".into(),
        b'H' => "CopyOut".into(),
        b'c' => "CopyDone".into(),
        b'A' => "Notification".into(),
        tag => format!("message {}", char::from(tag)),
    }
}
