//! The rules of the house, checked over the source text: who may import whom (the table in each `lib.rs`), that the pure
//! modules are pure, that only `tasks` spawns, and what must not be left behind. Each rule is a function from source
//! text to complaints, and the tests at the end show that each can complain.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

/// Paths that a pure module must not name, and what to do instead.
const IMPURE_PATHS: &[(&[&str], &str)] = &[
    (&["tokio"], "take bytes and events, return decisions"),
    (&["tokio_util"], "take bytes and events, return decisions"),
    (&["tokio_postgres"], "take bytes and events, return decisions"),
    (&["socket2"], "sockets belong to net"),
    (&["rustix"], "system calls belong to net, app and cli"),
    (&["std", "os"], "system calls belong to net, app and cli"),
    (&["std", "fs"], "take the file's text"),
    (&["std", "env"], "take the value"),
    (&["std", "process"], "return an error"),
    (&["std", "thread"], "return the work that is to be done"),
    (&["std", "io", "stdin"], "take the text"),
    (&["std", "io", "stdout"], "return the text"),
    (&["std", "io", "stderr"], "return the text"),
    (&["Instant", "now"], "take `now` as an argument"),
    (&["SystemTime"], "take `now` as an argument"),
    (&["rand"], "take a seed as an argument"),
    (&["getrandom"], "take a seed as an argument"),
    (&["tracing"], "return what happened; the caller logs it"),
    (&["log"], "return what happened; the caller logs it"),
    (&["metrics"], "return what happened; the caller counts it"),
];

/// Printing is output too.
const IMPURE_MACROS: [&str; 4] = ["println", "eprintln", "print", "eprint"];

/// Beginnings of the names of sockets, when a capital letter follows.
const SOCKETS: [&str; 3] = ["Tcp", "Udp", "Unix"];

/// What makes a static a variable.
const INTERIOR: [&str; 9] =
    ["Mutex", "RwLock", "Cell", "RefCell", "UnsafeCell", "OnceCell", "OnceLock", "LazyLock", "ArcSwap"];

/// The ends of paths that start a task or a thread.
const SPAWNS: &[&[&str]] = &[
    &["tokio", "spawn"],
    &["task", "spawn"],
    &["task", "spawn_local"],
    &["spawn_blocking"],
    &["spawn_local"],
    &["JoinSet"],
    &["thread", "spawn"],
    &["thread", "Builder"],
];

/// Lines that a file may have, tests not counted.
const FILE_LINES_MAX: usize = 1000;

/// Leftovers, and what to do instead.
const LEFT_MACROS: [(&str, &str); 3] =
    [("todo", "finish it"), ("unimplemented", "finish it"), ("dbg", "remove it, or log it")];

/// Words of unfinished work, put together here so that this file does not hold them.
const LEFT_WORDS: [&str; 2] = [concat!("FIX", "ME"), concat!("XX", "X")];

// ---- Reading source text ----

/// A source file of one of the crates.
struct Source {
    /// Of the crate: below `src`, with `/`.
    path: String,
    /// Where its crate's `src` is, below the workspace.
    root: &'static str,
    text: String,
    /// The code alone: see `code`.
    tokens: Vec<Token>,
}

impl Source {
    fn new(root: &'static str, path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), root, text: text.to_owned(), tokens: without_tests(code(text)) }
    }

    /// The top-level module that it belongs to: `frontend`, `lib`.
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// How many modules deep its code is: 1 for `wire/mod.rs` and `tasks.rs`, 2 for `wire/frame.rs`.
    fn depth(&self) -> usize {
        let parts = self.path.split('/').count();
        if self.path.ends_with("/mod.rs") { parts - 1 } else { parts }
    }

    fn complaint(&self, line: usize, what: &str, instead: &str) -> String {
        format!("{}/{}:{line}: {what}: {instead}", self.root, self.path)
    }
}

/// A word, a literal (as `"`), or one character of punctuation; `::` is one token.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

impl Token {
    fn is(&self, text: &str) -> bool {
        self.text == text
    }

    fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// The tokens of Rust source: comments are gone and literals hold nothing.
fn code(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    while at < bytes.len() {
        let end = at + token_length(&text[at..]);
        let token = &text[at..end];
        if !token.starts_with("//") && !token.starts_with("/*") && !token.trim().is_empty() {
            let text = if is_literal(token) { "\"" } else { token };
            tokens.push(Token { text: text.to_owned(), line });
        }
        line += token.matches('\n').count();
        at = end;
    }
    tokens
}

fn is_literal(token: &str) -> bool {
    let is_quoted = token.len() > 1 && token.ends_with(['"', '\'', '#']) && token.contains(['"', '\'']);
    is_quoted || token.starts_with(|c: char| c.is_ascii_digit())
}

/// How long the token, comment or space at the beginning of `rest` is.
fn token_length(rest: &str) -> usize {
    let first = rest.chars().next().unwrap();
    let while_true = |test: fn(char) -> bool| rest.find(|c| !test(c)).unwrap_or(rest.len());
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_length(rest);
    }
    if first.is_whitespace() {
        return while_true(char::is_whitespace);
    }
    if let Some(length) = string_length(rest) {
        return length;
    }
    if first.is_alphanumeric() || first == '_' {
        return while_true(|c| c.is_alphanumeric() || c == '_');
    }
    if first == '\'' {
        return quote_length(rest);
    }
    if rest.starts_with("::") { 2 } else { first.len_utf8() }
}

/// Block comments nest.
fn block_comment_length(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Strings, byte strings, C strings and raw ones.
fn string_length(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        let after = rest.strip_prefix(prefix).map(|after| after.trim_start_matches('#'));
        let is_raw = prefix.ends_with('r') || !rest[prefix.len().min(rest.len())..].starts_with('#');
        is_raw && after.is_some_and(|after| after.starts_with('"'))
    })?;
    if prefix.ends_with('r') {
        let hashes = rest[prefix.len()..].find('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let start = prefix.len() + hashes + 1;
        return Some(rest[start..].find(&end).map_or(rest.len(), |length| start + length + end.len()));
    }
    let start = prefix.len() + 1;
    Some(closing(rest, start, b'"'))
}

/// A character, or a lifetime.
fn quote_length(rest: &str) -> usize {
    let mut chars = rest[1..].chars();
    let (first, second) = (chars.next().unwrap_or(' '), chars.next());
    if first == '\\' || second == Some('\'') {
        return closing(rest, 1, b'\'');
    }
    1 + rest[1..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len() - 1)
}

/// The position after the next `end` that no backslash stands before.
fn closing(rest: &str, start: usize, end: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = start;
    while at < bytes.len() && bytes[at] != end {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn matches_at(tokens: &[Token], at: usize, texts: &[&str]) -> bool {
    texts.iter().enumerate().all(|(i, text)| tokens.get(at + i).is_some_and(|token| token.is(text)))
}

/// The attributes of what only tests see. Fuzzing sees the second kind, too.
const TEST_ATTRIBUTES: [&[&str]; 2] = [
    &["#", "[", "cfg", "(", "test", ")", "]"],
    &["#", "[", "cfg", "(", "any", "(", "test", ",", "feature", "=", "\"", ")", ")", "]"],
];

/// The position after the attribute of a test that begins here.
fn after_test_attribute(tokens: &[Token], at: usize) -> Option<usize> {
    let here = TEST_ATTRIBUTES.iter().find(|attribute| matches_at(tokens, at, attribute))?;
    Some(at + here.len())
}

/// Leaves out the items that are only there in tests.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if let Some(item) = after_test_attribute(&tokens, at) {
            at = item_end(&tokens, item);
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// The position after an item: its `;`, or its outermost `}`. (A field or a variant ends at `,`.)
fn item_end(tokens: &[Token], start: usize) -> usize {
    let (mut depth, mut at) = (0_usize, start);
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" if depth == 0 => return at,
            "}" | ")" | "]" => {
                depth -= 1;
                if depth == 0 && tokens[at].is("}") {
                    return at + 1;
                }
            }
            ";" | "," if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

/// A path in the code, as `use` trees and expressions name it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    path: Vec<String>,
    line: usize,
}

/// Every path that the code names. `use a::{b, c::d};` names `a::b` and `a::c::d`.
fn named(tokens: &[Token]) -> Vec<Named> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let continues = at > 0 && tokens[at - 1].is("::");
        if tokens[at].is_word() && !continues {
            at = path_at(tokens, at, &[], &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads a path, or a tree of them, and returns the position after it.
fn path_at(tokens: &[Token], start: usize, before: &[String], found: &mut Vec<Named>) -> usize {
    let (mut path, mut at) = (before.to_vec(), start);
    let line = tokens.get(at).map_or(0, |token| token.line);
    loop {
        match tokens.get(at) {
            Some(token) if token.is("{") && at > 0 && tokens[at - 1].is("::") => {
                return tree_at(tokens, at + 1, &path, found);
            }
            Some(token) if token.is_word() => path.push(token.text.clone()),
            _ => break,
        }
        at += 1;
        if !tokens.get(at).is_some_and(|token| token.is("::")) {
            break;
        }
        at += 1;
    }
    found.push(Named { path, line });
    // Another name for it is no path.
    if tokens.get(at).is_some_and(|token| token.is("as")) { at + 2 } else { at.max(start + 1) }
}

fn tree_at(tokens: &[Token], start: usize, before: &[String], found: &mut Vec<Named>) -> usize {
    let mut at = start;
    while at < tokens.len() && !tokens[at].is("}") {
        at = if tokens[at].is_word() { path_at(tokens, at, before, found) } else { at + 1 };
    }
    at + 1
}

fn starts_with(path: &[String], start: &[&str]) -> bool {
    path.len() >= start.len() && path.iter().zip(start).all(|(a, b)| a == b)
}

fn ends_with(path: &[String], end: &[&str]) -> bool {
    path.len() >= end.len() && path[path.len() - end.len()..].iter().zip(end).all(|(a, b)| a == b)
}

// ---- The rules ----

/// Which modules a module may import: the last column of the table in the documentation of `lib.rs`.
fn import_table(lib: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut table: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut everything = Vec::new();
    for line in lib.lines().filter_map(|line| line.strip_prefix("//! |")) {
        let cells: Vec<&str> = line.trim_end_matches('|').split('|').map(str::trim).collect();
        let Some(name) = cells[0].strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        let allowed = match *cells.last().unwrap() {
            "nothing of ours" => BTreeSet::new(),
            "everything" => {
                everything.push(name.to_owned());
                BTreeSet::new()
            }
            above if above.contains("all the above") => table.keys().cloned().collect(),
            list => list.split(',').map(|name| name.trim().trim_matches('`').to_owned()).collect(),
        };
        table.insert(name.to_owned(), allowed);
    }
    let all: BTreeSet<String> = table.keys().cloned().collect();
    for name in everything {
        table.insert(name, all.clone());
    }
    table
}

/// Uses of `crate::X` and of as many `super`s as lead to the crate that the table does not allow.
fn wrong_imports(source: &Source, table: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let module = source.module();
    if matches!(module, "lib" | "main") {
        return Vec::new();
    }
    let Some(allowed) = table.get(module) else {
        return vec![source.complaint(1, "this module has no row in the table", "add it to lib.rs")];
    };
    let imports = named(&source.tokens).into_iter().filter_map(|Named { path, line }| {
        let supers = path.iter().take_while(|part| *part == "super").count();
        let roots = if path[0] == "crate" { 1 } else { supers };
        let reaches = path[0] == "crate" || (supers > 0 && supers >= source.depth());
        reaches.then(|| (path.get(roots).cloned().unwrap_or_default(), line))
    });
    let wrong = imports.filter(|(target, _)| target != module && !allowed.contains(target));
    let complain = |(target, line)| {
        let instead = "the table in lib.rs does not allow that";
        source.complaint(line, &format!("{module} imports {target}"), instead)
    };
    wrong.map(complain).collect()
}

/// What a pure module must not know.
fn impurities(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for Named { path, line } in named(&source.tokens) {
        let forbidden = IMPURE_PATHS.iter().find(|(banned, _)| match banned {
            [one] if one.starts_with(char::is_lowercase) => starts_with(&path, banned),
            [first, ..] if *first == "std" => starts_with(&path, banned),
            _ => path.windows(banned.len()).any(|part| starts_with(part, banned)),
        });
        // A path of one word may be a variable; a crate is named with more, or in a `use`.
        if let Some((_, instead)) = forbidden.filter(|_| path.len() > 1 || path[0] == "SystemTime") {
            complaints.push(source.complaint(line, &path.join("::"), instead));
        }
        let is_socket = |word: &String| {
            SOCKETS
                .iter()
                .any(|socket| word.strip_prefix(socket).is_some_and(|rest| rest.starts_with(char::is_uppercase)))
        };
        if path.iter().any(is_socket) {
            complaints.push(source.complaint(line, &path.join("::"), "sockets belong to net"));
        }
    }
    for at in 0..source.tokens.len() {
        let token = &source.tokens[at];
        if IMPURE_MACROS.contains(&token.text.as_str()) && matches_at(&source.tokens, at + 1, &["!"]) {
            complaints.push(source.complaint(token.line, &token.text, "return the text"));
        }
    }
    complaints.extend(state(source));
    complaints
}

/// Statics that change.
fn state(source: &Source) -> Vec<String> {
    let tokens = &source.tokens;
    let mut complaints = Vec::new();
    let complain = |token: &Token| source.complaint(token.line, "a global with state", "hand it down as an argument");
    for at in 0..tokens.len() {
        if tokens[at].is("thread_local") && matches_at(tokens, at + 1, &["!"]) {
            complaints.push(complain(&tokens[at]));
        }
        if !tokens[at].is("static") {
            continue;
        }
        let declaration = tokens[at + 1..].iter().take_while(|token| !token.is("=") && !token.is(";"));
        let changes = declaration.into_iter().any(|token| {
            token.is("mut") || token.text.starts_with("Atomic") || INTERIOR.contains(&token.text.as_str())
        });
        if changes {
            complaints.push(complain(&tokens[at]));
        }
    }
    complaints
}

/// Only `tasks` spawns; `app` starts the worker threads, and the demo is plain synchronous code, as is most of the
/// laboratory.
fn spawns(source: &Source) -> Vec<String> {
    let may_have_threads = source.path == "app.rs" || source.path.starts_with("cli/demo/");
    if source.path == "tasks.rs" || source.root == LAB {
        return Vec::new();
    }
    let spawning = named(&source.tokens).into_iter().filter(|named| {
        let is_thread = named.path.iter().any(|part| part == "thread");
        SPAWNS.iter().any(|end| ends_with(&named.path, end)) && !(is_thread && may_have_threads)
    });
    let complain = |named: Named| source.complaint(named.line, &named.path.join("::"), "tasks::Scope spawns");
    spawning.map(complain).collect()
}

/// `unwrap()` says nothing when it fails.
fn unwraps(source: &Source) -> Vec<String> {
    let tokens = &source.tokens;
    let found = (0..tokens.len()).filter(|at| matches_at(tokens, *at, &[".", "unwrap", "(", ")"]));
    let instead = "handle it, or expect(\"why it holds\")";
    found.map(|at| source.complaint(tokens[at].line, "unwrap()", instead)).collect()
}

/// Unfinished work, in tests too.
fn leftovers(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    let tokens = code(&source.text);
    for (at, token) in tokens.iter().enumerate() {
        let left = LEFT_MACROS.iter().find(|(name, _)| token.is(name));
        if let Some((name, instead)) = left.filter(|_| matches_at(&tokens, at + 1, &["!"])) {
            complaints.push(source.complaint(token.line, name, instead));
        }
    }
    for (number, line) in source.text.lines().enumerate() {
        for word in LEFT_WORDS.iter().filter(|word| line.contains(**word)) {
            complaints.push(source.complaint(number + 1, word, "finish it"));
        }
    }
    complaints
}

/// A file is about one thing.
fn length(source: &Source) -> Vec<String> {
    let lines: BTreeSet<usize> = source.tokens.iter().map(|token| token.line).collect();
    if lines.len() <= FILE_LINES_MAX {
        return Vec::new();
    }
    vec![source.complaint(1, &format!("{} lines of code", lines.len()), "make two files of it")]
}

// ---- Applying them ----

/// The program's sources.
const PROGRAM: &str = "src";

/// The sources of the rules, all of them pure.
const CORE: &str = "crates/core/src";

/// The sources of what demo, tests and benches share.
const LAB: &str = "crates/lab/src";

fn folder(root: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(root)
}

/// Read once for all rules.
static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(sources);

/// Every file of every crate; those that a `#[cfg(test)] mod name;` names have no tokens.
fn sources() -> Vec<Source> {
    [PROGRAM, CORE, LAB].into_iter().flat_map(sources_of).collect()
}

fn sources_of(root: &'static str) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&folder(root), &mut paths);
    let read = |path: &PathBuf| {
        let below = path.strip_prefix(folder(root)).unwrap().to_str().unwrap().to_owned();
        Source::new(root, &below, &fs::read_to_string(path).unwrap())
    };
    let mut sources: Vec<Source> = paths.iter().map(read).collect();
    let tests: Vec<String> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        let is_test =
            |test: &String| source.path == format!("{test}.rs") || source.path.starts_with(&format!("{test}/"));
        if tests.iter().any(is_test) {
            source.tokens.clear();
        }
    }
    sources
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// Where the modules are that a file declares for tests only: `sql/tests` for `#[cfg(test)] mod tests;` in `sql/mod.rs`.
fn test_modules(source: &Source) -> Vec<String> {
    let tokens = code(&source.text);
    let directory = match source.path.rsplit_once('/') {
        Some((directory, "mod.rs")) => format!("{directory}/"),
        _ if matches!(source.path.as_str(), "lib.rs" | "main.rs") => String::new(),
        _ => format!("{}/", source.path.trim_end_matches(".rs")),
    };
    let items = (0..tokens.len()).filter_map(|at| after_test_attribute(&tokens, at));
    let words = items.map(|at| if tokens[at].is("pub") { at + 1 } else { at });
    let declared = words.filter(|at| matches_at(&tokens, *at, &["mod"]));
    let files = declared.filter(|at| matches_at(&tokens, at + 2, &[";"]));
    files.map(|at| format!("{directory}{}", tokens[at + 1].text)).collect()
}

fn check(complain: impl Fn(&Source) -> Vec<String>) {
    let complaints: Vec<String> = SOURCES.iter().flat_map(complain).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn modules_import_what_the_table_allows() {
    for root in [PROGRAM, CORE] {
        let table = import_table(&fs::read_to_string(folder(root).join("lib.rs")).unwrap());
        check(|source| if source.root == root { wrong_imports(source, &table) } else { Vec::new() });
        let modules: BTreeSet<&str> = SOURCES.iter().filter(|source| source.root == root).map(Source::module).collect();
        let below: BTreeSet<&str> = modules.into_iter().filter(|name| !matches!(*name, "lib" | "main")).collect();
        let rows: BTreeSet<&str> = table.keys().map(String::as_str).collect();
        assert_eq!(below, rows, "the modules, and the rows of the table in {root}/lib.rs");
    }
}

#[test]
fn pure_modules_are_pure() {
    check(|source| if source.root == CORE { impurities(source) } else { Vec::new() });
}

#[test]
fn no_module_keeps_state_in_globals() {
    check(state);
}

#[test]
fn only_tasks_spawns() {
    check(spawns);
}

#[test]
fn nothing_is_unwrapped() {
    check(unwraps);
}

#[test]
fn nothing_is_left_unfinished() {
    check(leftovers);
}

#[test]
fn files_are_about_one_thing() {
    check(length);
}

// ---- Each rule can complain ----

fn complains(rule: impl Fn(&Source) -> Vec<String>, path: &str, text: &str) -> usize {
    rule(&Source::new(PROGRAM, path, text)).len()
}

#[test]
fn source_text_is_read_as_rust() {
    let words = |text: &str| code(text).into_iter().map(|token| token.text).collect::<Vec<_>>().join(" ");
    assert_eq!(words("a /* b /* c */ d */ e // f\ng"), "a e g");
    assert_eq!(words(r##"x("a \" b", r#"c " d"#, b"e", 'f', '\'', b'g') 'static"##), {
        "x ( \" , \" , \" , \" , \" , b \" ) 'static"
    });
    assert_eq!(words("a::b<'c>(1_000.5)"), "a :: b < 'c > ( \" . \" )");
    let lines: Vec<usize> = code("a\n\"b\nc\" d\n// e\nf").iter().map(|token| token.line).collect();
    assert_eq!(lines, [1, 2, 3, 5]);
    let kept = without_tests(code("a; #[cfg(test)] mod t { fn x() { y([1; 2]) } } b; #[cfg(test)] use c; d"));
    assert_eq!(kept.iter().map(|token| token.text.as_str()).collect::<String>(), "a;b;d");
}

#[test]
fn paths_are_found() {
    let paths = |text: &str| {
        let found = named(&code(text)).into_iter().map(|named| named.path.join("::"));
        found.filter(|path| path.contains("::")).collect::<Vec<_>>()
    };
    assert_eq!(paths("use a::{b, c::{self, d}, e as f};"), ["a::b", "a::c::self", "a::c::d", "a::e"]);
    assert_eq!(paths("let x = a::b::<c::D>(e::f());"), ["a::b", "c::D", "e::f"]);
}

#[test]
fn an_import_against_the_table_is_found() {
    let lib = "//! | module | what | may import |\n//! | `wire` | x | nothing of ours |\n//! | `net` | y | wire |\n\
               //! | `config` | z | the `Settings` types of all the above |\n//! | `app` | a | everything |\n";
    let table = import_table(lib);
    let wrong = |path: &str, text: &str| complains(|source| wrong_imports(source, &table), path, text);
    assert_eq!(wrong("net/mod.rs", "use crate::wire::Frame; use crate::net::x; use super::wire;"), 0);
    assert_eq!(wrong("config/mod.rs", "use crate::{wire, net::Settings};"), 0);
    assert_eq!(wrong("app.rs", "use crate::{config, net}; fn f() { crate::wire::x() }"), 0);
    assert_eq!(wrong("net/mod.rs", "#[cfg(test)] mod tests { use crate::app; }"), 0);
    assert_eq!(wrong("wire/frame.rs", "use super::net; // its sibling"), 0);
    assert_eq!(wrong("wire/frame.rs", "use crate::net::Stream;"), 1);
    assert_eq!(wrong("wire/frame.rs", "use super::super::net;"), 1);
    assert_eq!(wrong("wire/mod.rs", "use super::net;"), 1);
    assert_eq!(wrong("wire/mod.rs", "fn f() { crate::net::g() }"), 1);
    assert_eq!(wrong("net/mod.rs", "use crate::{wire, app::{self, x}, config::Y};"), 3);
    assert_eq!(wrong("config/mod.rs", "use crate::app;"), 1);
    assert_eq!(wrong("other.rs", ""), 1);
}

#[test]
fn impurity_is_found() {
    for pure in [
        "// tokio::spawn\nuse std::{collections::HashMap, net::IpAddr, time::Instant};",
        "let tokio = \"tokio::spawn\"; let log = 1; fn f(now: Instant) { now.elapsed(); metrics.len() }",
        "static NAMES: [&str; 1] = [\"a\"]; fn f(x: &'static Mutex<u8>) {} enum Listen { Tcp, Unix }",
        "#[cfg(test)] mod tests { use std::fs; fn f() { Instant::now(); } }",
    ] {
        assert_eq!(complains(impurities, "wire/mod.rs", pure), 0, "{pure}");
    }
    for impure in [
        "use tokio::sync::Mutex;",
        "use std::{fmt, fs};",
        "use std::{net::{IpAddr, TcpStream}};",
        "fn f(x: UnixListener) {}",
        "fn f() { std::env::var(\"x\") }",
        "fn f() { std::thread::sleep(x) }",
        "fn f() { Instant::now() }",
        "fn f() { std::time::Instant::now() }",
        "use std::time::SystemTime;",
        "fn f(x: SystemTime) {}",
        "fn f() { getrandom::fill(x) }",
        "fn f() { rand::random() }",
        "fn f() { tracing::info!(\"x\") }",
        "fn f() { metrics::counter!(\"x\") }",
        "fn f() { println!(\"x\") }",
        "static X: std::sync::Mutex<u8> = y;",
        "static X: AtomicU64 = y;",
        "static mut X: u8 = 0;",
        "static X: OnceLock<u8> = y;",
        "thread_local! { static X: u8 = 0; }",
    ] {
        assert_eq!(complains(impurities, "wire/mod.rs", impure), 1, "{impure}");
    }
}

#[test]
fn spawning_is_found() {
    let task = "fn f() { tokio::spawn(x) }";
    let thread = "use std::thread; fn f() { thread::spawn(x) }";
    for (path, text, expected) in [
        ("net/mod.rs", task, 1),
        ("net/mod.rs", thread, 1),
        ("net/mod.rs", "use tokio::task::{self, spawn_blocking};", 1),
        ("net/mod.rs", "use tokio::task::JoinSet;", 1),
        ("net/mod.rs", "fn f() { scope.spawn(x); thread::sleep(y) }", 0),
        ("tasks.rs", task, 0),
        ("app.rs", thread, 0),
        ("app.rs", task, 1),
        ("cli/demo/check.rs", thread, 0),
        ("cli/demo/check.rs", task, 1),
        ("cli/serve.rs", thread, 1),
    ] {
        assert_eq!(complains(spawns, path, text), expected, "{path}: {text}");
    }
}

#[test]
fn leftovers_are_found() {
    assert_eq!(complains(unwraps, "a.rs", "fn f() { x.unwrap() }"), 1);
    assert_eq!(complains(unwraps, "a.rs", "fn f() { x\n.unwrap() }"), 1);
    assert_eq!(complains(unwraps, "a.rs", "x.unwrap_or(1); #[cfg(test)] mod tests { fn f() { x.unwrap() } }"), 0);
    for (name, _) in LEFT_MACROS {
        assert_eq!(complains(leftovers, "a.rs", &format!("fn f() {{ {name}!() }}")), 1);
        assert_eq!(complains(leftovers, "a.rs", &format!("fn f() {{ {name}() }} // {name}!")), 0);
    }
    for word in LEFT_WORDS {
        assert_eq!(complains(leftovers, "a.rs", &format!("// {word}: later")), 1);
    }
    let long = |code: &str, tests: usize| {
        let tests = "fn t() {}\n".repeat(tests);
        complains(length, "a.rs", &format!("{}#[cfg(test)]\nmod tests {{\n{tests}}}", code.repeat(FILE_LINES_MAX)))
    };
    assert_eq!((long("f();\n", 0), long("f();\n", 99), long("// x\n\n", 99)), (0, 0, 0));
    assert_eq!(long("f();\ng();\n", 0), 1);
    let source = Source::new(PROGRAM, "sql/mod.rs", "#[cfg(test)] mod tests; #[cfg(test)] mod inline { }");
    assert_eq!(test_modules(&source), ["sql/tests"]);
    assert_eq!(test_modules(&Source::new(PROGRAM, "auth/scram.rs", "#[cfg(test)]\nmod tests;")), ["auth/scram/tests"]);
}
