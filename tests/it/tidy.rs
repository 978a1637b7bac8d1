//! The rules of the house that neither the compiler nor clippy knows (see `[workspace.lints]` and each `clippy.toml` for
//! what they know), checked over the source text: who may import whom, that nothing global changes, how long files and
//! structs may be, and what must not be left behind. Each rule is a function from a source to complaints, and the tests
//! at the end show that each can complain.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::{
    Attribute, File, Item, UseTree,
    spanned::Spanned,
    visit::{self, Visit},
};

/// The program's sources.
const PROGRAM: &str = "src";

/// The sources of the rules, all of them pure.
pub const CORE: &str = "crates/core/src";

/// The sources of what demo, tests and benches share.
const LAB: &str = "crates/lab/src";

/// What makes a static a variable.
const INTERIOR: [&str; 9] =
    ["Mutex", "RwLock", "Cell", "RefCell", "UnsafeCell", "OnceCell", "OnceLock", "LazyLock", "ArcSwap"];

/// Lines of code that a file may have, tests not counted.
const FILE_LINES_MAX: usize = 1000;

/// Words of unfinished work, put together here so that this file does not hold them.
const LEFT_WORDS: [&str; 2] = [concat!("FIX", "ME"), concat!("XX", "X")];

// ---- Reading source text ----

/// A source file of one of the crates, without what only tests see.
pub struct Source {
    /// Where its crate's `src` is, below the workspace.
    pub root: &'static str,
    /// Below that, with `/`.
    pub path: String,
    text: String,
    file: File,
}

impl Source {
    pub fn new(root: &'static str, path: &str, text: &str) -> Source {
        let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{root}/{path}: {error}"));
        Source { root, path: path.to_owned(), text: text.to_owned(), file }
    }

    /// The top-level module that it belongs to: `frontend`, `lib`.
    pub fn module(&self) -> &str {
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

    /// The items, but those of tests.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.file.items.iter().filter(|item| !is_of_tests(attributes(item)))
    }
}

pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// `#[cfg(test)]`, and `#[cfg(any(test, feature = "…"))]` for what fuzzing sees, too.
pub fn is_of_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        let condition = list.tokens.to_string();
        list.path.is_ident("cfg") && (condition == "test" || condition.starts_with("any (test ,"))
    })
}

fn line(span: Span) -> usize {
    span.start().line
}

/// Every path that the code names, with its line: `use a::{b, c::d};` names `a::b` and `a::c::d`.
pub fn named(source: &Source) -> Vec<(Vec<String>, usize)> {
    struct Paths(Vec<(Vec<String>, usize)>);

    impl Paths {
        fn tree(&mut self, tree: &UseTree, before: &[String]) {
            let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
            match tree {
                UseTree::Path(path) => self.tree(&path.tree, &with(&path.ident)),
                UseTree::Name(name) => self.0.push((with(&name.ident), line(name.span()))),
                UseTree::Rename(rename) => self.0.push((with(&rename.ident), line(rename.span()))),
                UseTree::Glob(glob) => self.0.push((before.to_vec(), line(glob.span()))),
                UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, before)),
            }
        }

        /// What a macro is called with is tokens only.
        fn tokens(&mut self, tokens: TokenStream) {
            let mut path: Vec<String> = Vec::new();
            let (mut start, mut colons) = (0, 0);
            for token in tokens {
                match &token {
                    TokenTree::Ident(word) if !path.is_empty() && colons == 2 => path.push(word.to_string()),
                    TokenTree::Ident(word) => {
                        self.0.push((std::mem::replace(&mut path, vec![word.to_string()]), start));
                        start = line(word.span());
                    }
                    TokenTree::Punct(point) if point.as_char() == ':' => {
                        colons += 1;
                        continue;
                    }
                    TokenTree::Group(group) => self.tokens(group.stream()),
                    _ => self.0.push((std::mem::take(&mut path), start)),
                }
                colons = 0;
            }
            self.0.push((path, start));
        }
    }

    impl<'a> Visit<'a> for Paths {
        fn visit_item(&mut self, item: &'a Item) {
            if !is_of_tests(attributes(item)) {
                visit::visit_item(self, item);
            }
        }

        fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
            self.tree(&item.tree, &[]);
        }

        fn visit_path(&mut self, path: &'a syn::Path) {
            self.0.push((path.segments.iter().map(|part| part.ident.to_string()).collect(), line(path.span())));
            visit::visit_path(self, path);
        }

        /// `pub(in a::b)` imports nothing.
        fn visit_visibility(&mut self, _: &'a syn::Visibility) {}

        fn visit_macro(&mut self, called: &'a syn::Macro) {
            self.visit_path(&called.path);
            self.tokens(called.tokens.clone());
        }

        /// What is derived, and the paths in what attributes say.
        fn visit_attribute(&mut self, attribute: &'a Attribute) {
            if let syn::Meta::List(list) = &attribute.meta {
                self.tokens(list.tokens.clone());
            }
            visit::visit_attribute(self, attribute);
        }
    }

    let mut paths = Paths(Vec::new());
    paths.visit_file(&source.file);
    paths.0.retain(|(path, _)| !path.is_empty());
    paths.0
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
    let imports = named(source).into_iter().filter_map(|(path, line)| {
        let supers = path.iter().take_while(|part| *part == "super").count();
        let roots = if path[0] == "crate" { 1 } else { supers };
        let reaches = path[0] == "crate" || (supers > 0 && supers >= source.depth());
        reaches.then(|| (path.get(roots).cloned().unwrap_or_default(), line))
    });
    let wrong = imports.filter(|(target, _)| target != module && !allowed.contains(target));
    let complain = |(target, line)| {
        source.complaint(line, &format!("{module} imports {target}"), "the table in lib.rs does not allow that")
    };
    wrong.map(complain).collect()
}

/// Statics that change.
fn globals(source: &Source) -> Vec<String> {
    struct Statics(Vec<usize>);

    impl<'a> Visit<'a> for Statics {
        fn visit_item(&mut self, item: &'a Item) {
            if !is_of_tests(attributes(item)) {
                visit::visit_item(self, item);
            }
        }

        fn visit_item_static(&mut self, item: &'a syn::ItemStatic) {
            struct Words(bool);
            impl<'a> Visit<'a> for Words {
                fn visit_ident(&mut self, word: &'a syn::Ident) {
                    let word = word.to_string();
                    self.0 |= word.starts_with("Atomic") || INTERIOR.contains(&word.as_str());
                }
            }
            let mut words = Words(matches!(item.mutability, syn::StaticMutability::Mut(_)));
            words.visit_type(&item.ty);
            if words.0 {
                self.0.push(line(item.span()));
            }
        }

        fn visit_macro(&mut self, called: &'a syn::Macro) {
            if called.path.segments.last().is_some_and(|name| name.ident == "thread_local") {
                self.0.push(line(called.span()));
            }
        }
    }

    let mut statics = Statics(Vec::new());
    statics.visit_file(&source.file);
    let complain = |line: usize| source.complaint(line, "a global with state", "hand it down as an argument");
    statics.0.into_iter().map(complain).collect()
}

/// Queries that a session writes itself: a query of ours takes the server's unnamed statement away, which `ask_ours` notes.
/// What stands in the place of a client's own query is the exception.
fn questions(source: &Source) -> Vec<String> {
    let may_write = matches!(source.path.as_str(), "session/ask.rs" | "session/client.rs" | "session/pins.rs");
    if source.root != CORE || source.module() != "session" || may_write {
        return Vec::new();
    }
    let writes = |path: &[String]| matches!(path, [.., of, name] if of == "request" && name.starts_with("query"));
    let reads = |path: &[String]| path.last().is_some_and(|name| name == "query_text");
    let written = named(source).into_iter().filter(|(path, _)| writes(path) && !reads(path));
    written.map(|(path, line)| source.complaint(line, &path.join("::"), "ask::ask_ours sends queries")).collect()
}

/// Unfinished work, in tests too.
fn leftovers(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        for word in LEFT_WORDS.iter().filter(|word| line.contains(**word)) {
            complaints.push(source.complaint(number + 1, word, "finish it"));
        }
    }
    complaints
}

/// A file is about one thing. Lines of comments alone are not counted.
fn length(source: &Source) -> Vec<String> {
    fn collect(tokens: TokenStream, lines: &mut BTreeSet<usize>) {
        for token in tokens {
            lines.extend([token.span().start().line, token.span().end().line]);
            if let TokenTree::Group(group) = token {
                collect(group.stream(), lines);
            }
        }
    }

    let of_code = |number: &usize| {
        let line = source.text.lines().nth(number - 1).unwrap_or_default().trim_start();
        !line.is_empty() && !line.starts_with("//")
    };
    let mut lines = BTreeSet::new();
    for item in source.items() {
        collect(quote::ToTokens::to_token_stream(item), &mut lines);
    }
    let count = lines.iter().filter(|number| of_code(number)).count();
    if count <= FILE_LINES_MAX {
        return Vec::new();
    }
    vec![source.complaint(1, &format!("{count} lines of code"), "make two files of it")]
}

// ---- Applying them ----

pub fn folder(root: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(root)
}

/// A file: its root, its path below that, and its text.
pub type Text = [String; 3];

/// Every file of every crate; those that only tests see come last.
pub static FILES: LazyLock<(Vec<Text>, Vec<Text>)> = LazyLock::new(|| {
    let roots = [PROGRAM, CORE, LAB];
    let all: Vec<Text> = roots.into_iter().flat_map(files_of).collect();
    let of_tests: BTreeSet<(String, String)> = all
        .iter()
        .flat_map(|[root, path, text]| {
            let modules = test_modules(path, &syn::parse_file(text).unwrap());
            modules.into_iter().map(|module| (root.clone(), module))
        })
        .collect();
    all.into_iter().partition(|[root, path, _]| {
        !of_tests.iter().any(|(of, module)| {
            of == root && (*path == format!("{module}.rs") || path.starts_with(&format!("{module}/")))
        })
    })
});

fn files_of(root: &str) -> Vec<Text> {
    let mut paths = Vec::new();
    collect(&folder(root), &mut paths);
    let read = |path: &PathBuf| {
        let below = path.strip_prefix(folder(root)).unwrap().to_str().unwrap().to_owned();
        [root.to_owned(), below, fs::read_to_string(path).unwrap()]
    };
    paths.iter().map(read).collect()
}

pub fn collect(directory: &Path, paths: &mut Vec<PathBuf>) {
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
fn test_modules(path: &str, file: &File) -> Vec<String> {
    let directory = match path.rsplit_once('/') {
        Some((directory, "mod.rs")) => format!("{directory}/"),
        _ if matches!(path, "lib.rs" | "main.rs") => String::new(),
        _ => format!("{}/", path.trim_end_matches(".rs")),
    };
    let declared = file.items.iter().filter_map(|item| match item {
        Item::Mod(module) if module.content.is_none() && is_of_tests(&module.attrs) => Some(&module.ident),
        _ => None,
    });
    declared.map(|name| format!("{directory}{name}")).collect()
}

pub fn root_of(root: &str) -> &'static str {
    [PROGRAM, CORE, LAB].into_iter().find(|known| *known == root).unwrap()
}

/// All that a rule complains about in what the program and its crates are made of.
fn check(complain: impl Fn(&Source) -> Vec<String>) {
    let sources = FILES.0.iter().map(|[root, path, text]| Source::new(root_of(root), path, text));
    let complaints: Vec<String> = sources.flat_map(|source| complain(&source)).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn modules_import_what_the_table_allows() {
    for root in [PROGRAM, CORE] {
        let table = import_table(&fs::read_to_string(folder(root).join("lib.rs")).unwrap());
        check(|source| if source.root == root { wrong_imports(source, &table) } else { Vec::new() });
        let here = FILES.0.iter().chain(&FILES.1).filter(|[of, ..]| of == root);
        let modules = here.map(|[_, path, _]| path.split('/').next().unwrap().trim_end_matches(".rs"));
        let modules: BTreeSet<&str> = modules.filter(|name| !matches!(*name, "lib" | "main")).collect();
        let rows: BTreeSet<&str> = table.keys().map(String::as_str).collect();
        assert_eq!(modules, rows, "the modules, and the rows of the table in {root}/lib.rs");
    }
}

#[test]
fn no_module_keeps_state_in_globals() {
    check(globals);
}

#[test]
fn nothing_is_left_unfinished() {
    check(leftovers);
    let tests = FILES.1.iter().map(|[root, path, text]| Source::new(root_of(root), path, text));
    let complaints: Vec<String> = tests.flat_map(|source| leftovers(&source)).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn sessions_ask_in_one_way() {
    check(questions);
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
fn paths_are_found() {
    let paths = |text: &str| {
        let found = named(&Source::new(PROGRAM, "a.rs", text)).into_iter().map(|(path, _)| path.join("::"));
        found.filter(|path| path.contains("::")).collect::<Vec<_>>()
    };
    assert_eq!(paths("use a::{b, c::{self, d}, e as f};"), ["a::b", "a::c::self", "a::c::d", "a::e"]);
    assert_eq!(paths("fn x() { let x = a::b::<c::D>(e::f()); }"), ["a::b", "c::D", "e::f"]);
    assert_eq!(paths("fn x() { println!(\"{}\", a::b(c::d::e)); }"), ["c::d::e", "a::b"]);
    assert_eq!(paths("#[derive(a::B)] struct X; fn x() { c::d!() }"), ["a::B", "c::d"]);
    assert_eq!(paths("#[cfg(test)] mod t { use a::b; } #[cfg(any(test, feature = \"x\"))] fn f() { a::b() }"), [""; 0]);
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
    assert_eq!(wrong("wire/mod.rs", "fn f() { format!(\"{}\", crate::net::g()) }"), 1);
    assert_eq!(wrong("net/mod.rs", "use crate::{wire, app::{self, x}, config::Y};"), 3);
    assert_eq!(wrong("config/mod.rs", "use crate::app;"), 1);
    assert_eq!(wrong("other.rs", ""), 1);
}

#[test]
fn a_global_that_changes_is_found() {
    for still in [
        "static NAMES: [&str; 1] = [\"a\"]; fn f(x: &'static Mutex<u8>) {}",
        "#[cfg(test)] mod tests { static X: AtomicU64 = y; }",
    ] {
        assert_eq!(complains(globals, "a.rs", still), 0, "{still}");
    }
    for changing in [
        "static X: std::sync::Mutex<u8> = y;",
        "static X: AtomicU64 = y;",
        "static mut X: u8 = 0;",
        "fn f() { static X: OnceLock<u8> = y; }",
        "thread_local! { static X: u8 = 0; }",
    ] {
        assert_eq!(complains(globals, "a.rs", changing), 1, "{changing}");
    }
}

#[test]
fn questions_are_found() {
    for (path, text, expected) in [
        ("session/probe.rs", "fn f() { request::query(x, y) }", 1),
        ("session/listen.rs", "use crate::wire::request::{query_bytes, sync};", 1),
        ("session/listen.rs", "fn f() { request::query_text(x); request::sync(y) }", 0),
        ("session/ask.rs", "fn f() { request::query_bytes(x, y) }", 0),
    ] {
        assert_eq!(questions(&Source::new(CORE, path, text)).len(), expected, "{path}: {text}");
    }
}

#[test]
fn leftovers_are_found() {
    for word in LEFT_WORDS {
        assert_eq!(complains(leftovers, "a.rs", &format!("// {word}: later")), 1);
    }
    let long = |code: &str, tests: usize| {
        let tests = "fn t() {}\n".repeat(tests);
        complains(length, "a.rs", &format!("{}#[cfg(test)]\nmod tests {{\n{tests}}}", code.repeat(FILE_LINES_MAX)))
    };
    assert_eq!((long("fn f() {}\n", 0), long("fn f() {}\n", 99), long("// x\n\n", 99)), (0, 0, 0));
    assert_eq!(long("fn f() {\n}\n", 0), 1);
    let file = |text| syn::parse_file(text).unwrap();
    assert_eq!(test_modules("sql/mod.rs", &file("#[cfg(test)] mod tests; #[cfg(test)] mod inline { }")), ["sql/tests"]);
    assert_eq!(test_modules("auth/scram.rs", &file("#[cfg(test)]\nmod tests;")), ["auth/scram/tests"]);
}
