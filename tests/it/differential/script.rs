//! Scripts of client actions, as text. `== name` begins a script; then each line is one action of one client. A line
//! that begins with a space goes on with the line before; `#` begins a comment. `2: ` in front names another client
//! than the first. `{x:300}` stands for 300 times x, `{name}` for what `\let name` took from the last row.
//!
//! | line                               | does                                                                   |
//! |------------------------------------|------------------------------------------------------------------------|
//! | `SELECT 1`                         | a simple query; reads until everything sent has been answered           |
//! | `+ SELECT 1`                       | a simple query that is sent with what follows                          |
//! | `\run SELECT 1`                    | Parse, Bind, Describe, Execute, all unnamed, sent with what follows    |
//! | `\parse name 23,25: SELECT $1`     | `_` is the unnamed statement; the types may be left out                |
//! | `\bind portal name: 1 \| NULL`     | `_` is the unnamed portal; the values may be left out                  |
//! | `\describe S name`, `\close P name`| S is a statement, P a portal                                           |
//! | `\execute portal 2`                | at most two rows                                                       |
//! | `\data a\tb\n`, `\done`, `\fail why`| for COPY FROM STDIN                                                    |
//! | `\call 1397: -5`                   | calls the function with this oid                                       |
//! | `\sync`                            | sends all, reads until everything has been answered                    |
//! | `\sync+`                           | a Sync that is sent with what follows; `\sync!` one that the server ignores |
//! | `\flush 12T`                       | sends all with a Flush, reads up to messages of these types            |
//! | `\send`, `\wait`                   | sends all, reads nothing; reads what is owed since                     |
//! | `\notified 2`                      | reads until two notifications have come in all                         |
//! | `\login user=boss \| options=-c x=1`| logs in (otherwise the first action does)                              |
//! | `\leave`                           | says goodbye                                                           |

/// One client's part of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Query { sql: String, waits: bool },
    Run(String),
    Parse { name: String, types: Vec<u32>, sql: String },
    Bind { portal: String, statement: String, values: Vec<Option<String>> },
    Describe { kind: u8, name: String },
    Close { kind: u8, name: String },
    Execute { portal: String, rows_max: i32 },
    CopyData(String),
    CopyDone,
    CopyFail(String),
    Call { function: u32, argument: String },
    Sync { waits: bool, answered: bool },
    Flush(Vec<u8>),
    Send,
    Wait,
    Let(String),
    Notified(usize),
    Login(Vec<(String, String)>),
    Leave,
}

/// An action, and who does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub client: usize,
    pub text: String,
    pub action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    pub name: String,
    pub lines: Vec<Line>,
}

/// The scripts of a file.
pub fn scripts(text: &str) -> Vec<Script> {
    let mut scripts: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("== ") {
            scripts.push((name.trim().to_owned(), Vec::new()));
            continue;
        }
        let (_, lines) = scripts.last_mut().expect("a script begins with its name");
        match (line.strip_prefix(' '), lines.last_mut()) {
            (Some(more), Some(last)) => *last = format!("{last}\n{}", more.trim()),
            _ => lines.push(line.to_owned()),
        }
    }
    scripts.into_iter().map(|(name, lines)| script(&name, &lines)).collect()
}

/// One script from its lines.
pub fn script<S: AsRef<str>>(name: &str, lines: &[S]) -> Script {
    let lines = lines.iter().map(|line| read(line.as_ref()).unwrap_or_else(|| panic!("{name}: {}", line.as_ref())));
    Script { name: name.to_owned(), lines: lines.collect() }
}

fn read(line: &str) -> Option<Line> {
    let (client, text) = match line.split_once(": ") {
        Some((client, text)) if client.len() == 1 && client.parse::<usize>().is_ok() => (client.parse().ok()?, text),
        _ => (1, line),
    };
    let action = if let Some(command) = text.strip_prefix('\\') {
        command_action(command)?
    } else if let Some(sql) = text.strip_prefix("+ ") {
        Action::Query { sql: repeated(sql), waits: false }
    } else {
        Action::Query { sql: repeated(text), waits: true }
    };
    Some(Line { client, text: text.to_owned(), action })
}

fn command_action(command: &str) -> Option<Action> {
    let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
    let (front, back) = rest.split_once(": ").unwrap_or((rest.trim_end_matches(':'), ""));
    let (first, second) = front.split_once(' ').unwrap_or((front, ""));
    Some(match word {
        "run" => Action::Run(repeated(rest)),
        "parse" => {
            let types = second.split(',').filter(|oid| !oid.is_empty()).map(|oid| oid.parse().ok());
            Action::Parse { name: name(first), types: types.collect::<Option<_>>()?, sql: repeated(back) }
        }
        "bind" => {
            let value = |text: &str| (text.trim() != "NULL").then(|| repeated(text.trim()));
            let values = if back.is_empty() { Vec::new() } else { back.split('|').map(value).collect() };
            Action::Bind { portal: name(first), statement: name(second), values }
        }
        "describe" => Action::Describe { kind: *first.as_bytes().first()?, name: name(second) },
        "close" => Action::Close { kind: *first.as_bytes().first()?, name: name(second) },
        "execute" => Action::Execute { portal: name(first), rows_max: second.parse().unwrap_or(0) },
        "data" => Action::CopyData(repeated(&rest.replace("\\n", "\n").replace("\\t", "\t"))),
        "done" => Action::CopyDone,
        "fail" => Action::CopyFail(rest.to_owned()),
        "call" => Action::Call { function: front.parse().ok()?, argument: back.to_owned() },
        "sync" => Action::Sync { waits: true, answered: true },
        "sync+" => Action::Sync { waits: false, answered: true },
        "sync!" => Action::Sync { waits: false, answered: false },
        "flush" => Action::Flush(rest.bytes().collect()),
        "send" => Action::Send,
        "wait" => Action::Wait,
        "let" => Action::Let(rest.to_owned()),
        "notified" => Action::Notified(rest.parse().ok()?),
        "login" => {
            let pairs = rest.split(" | ").filter_map(|pair| pair.split_once('='));
            Action::Login(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
        }
        "leave" => Action::Leave,
        _ => return None,
    })
}

fn name(text: &str) -> String {
    if text == "_" { String::new() } else { text.to_owned() }
}

/// A text with `{x:300}` written out.
fn repeated(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let inner = after.split_once('}').and_then(|(inner, after)| Some((inner.split_once(':')?, after)));
        match inner.map(|((what, times), after)| (what, times.parse::<usize>(), after)) {
            Some((what, Ok(times), after)) => {
                out.push_str(&what.repeat(times));
                rest = after;
            }
            _ => {
                out.push('{');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[test]
fn scripts_are_read() {
    let text =
        "# not this\n== one\nSELECT\n  1\n\n2: \\parse s 23: SELECT $1\n\\bind _ s: 1 | NULL\n== two\n\\flush 12\n";
    let scripts = scripts(text);
    assert_eq!(scripts.iter().map(|script| script.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    let [query, parse, bind] = &scripts[0].lines[..] else { panic!("{scripts:?}") };
    assert_eq!(query.action, Action::Query { sql: "SELECT\n1".into(), waits: true });
    assert_eq!((parse.client, &parse.text[..]), (2, "\\parse s 23: SELECT $1"));
    assert_eq!(parse.action, Action::Parse { name: "s".into(), types: vec![23], sql: "SELECT $1".into() });
    let values = vec![Some("1".into()), None];
    assert_eq!(bind.action, Action::Bind { portal: String::new(), statement: "s".into(), values });
    assert_eq!(scripts[1].lines[0].action, Action::Flush(b"12".to_vec()));
    assert_eq!(repeated("a{b:3}c{d}"), "abbbc{d}");
}
