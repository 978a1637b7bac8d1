//! How the house is built, in figures: what the last section of docs/architecture.md shows. `scripts/house.sh` prints them,
//! and some of them have bounds.

use std::collections::{BTreeMap, BTreeSet};

use quote::ToTokens;
use syn::{Fields, FnArg, ImplItem, Item, Type, UseTree, spanned::Spanned, visit::Visit};

use crate::tidy::{CORE, FILES, Source, attributes, folder, is_of_tests, named, root_of};

/// All sources, without what only tests see.
fn sources() -> Vec<Source> {
    FILES.0.iter().map(|[root, path, text]| Source::new(root_of(root), path, text)).collect()
}

/// A function: its name, its parameters beside `self`, and its lines.
struct Function {
    name: String,
    parameters: usize,
    lines: usize,
}

/// What is counted in the items of one file.
#[derive(Default)]
struct Count {
    functions: Vec<Function>,
    /// Structs with their fields and how many of these are booleans.
    structs: Vec<(String, usize, usize)>,
    types: Vec<String>,
    /// Methods by the type that they are of.
    methods: BTreeMap<String, usize>,
}

impl Count {
    fn of(source: &Source) -> Count {
        let mut count = Count::default();
        for item in source.items() {
            count.visit_item(item);
        }
        count
    }

    fn function(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let inputs = signature.inputs.iter().filter(|input| matches!(input, FnArg::Typed(_)));
        let lines = body.span().end().line - signature.span().start().line + 1;
        self.functions.push(Function { name: signature.ident.to_string(), parameters: inputs.count(), lines });
    }
}

impl<'a> Visit<'a> for Count {
    fn visit_item(&mut self, item: &'a Item) {
        if is_of_tests(attributes(item)) {
            return;
        }
        match item {
            Item::Struct(item) => {
                let fields: Vec<String> = match &item.fields {
                    Fields::Unit => Vec::new(),
                    fields => fields.iter().map(|field| field.ty.to_token_stream().to_string()).collect(),
                };
                let truths = fields.iter().filter(|field| *field == "bool").count();
                self.structs.push((item.ident.to_string(), fields.len(), truths));
                self.types.push(item.ident.to_string());
            }
            Item::Enum(item) => self.types.push(item.ident.to_string()),
            Item::Trait(item) => self.types.push(item.ident.to_string()),
            Item::Type(item) => self.types.push(item.ident.to_string()),
            Item::Fn(item) => self.function(&item.sig, &item.block),
            Item::Impl(item) => {
                let methods = item.items.iter().filter_map(|item| match item {
                    ImplItem::Fn(method) => Some(method),
                    _ => None,
                });
                let methods: Vec<_> = methods.collect();
                for method in &methods {
                    self.function(&method.sig, &method.block);
                }
                if let (None, Type::Path(path)) = (&item.trait_, &*item.self_ty) {
                    let name = path.path.segments.last().unwrap().ident.to_string();
                    *self.methods.entry(name).or_default() += methods.len();
                }
            }
            _ => {}
        }
        syn::visit::visit_item(self, item);
    }
}

/// What a top-level item is called, if it can be imported by a name.
fn name_of(item: &Item) -> Option<String> {
    Some(match item {
        Item::Const(item) => item.ident.to_string(),
        Item::Enum(item) => item.ident.to_string(),
        Item::Fn(item) => item.sig.ident.to_string(),
        Item::Static(item) => item.ident.to_string(),
        Item::Struct(item) => item.ident.to_string(),
        Item::Trait(item) => item.ident.to_string(),
        Item::Type(item) => item.ident.to_string(),
        _ => return None,
    })
}

/// The files of one folder that lead back to themselves by what they import, largest circle first. What a `mod.rs` only
/// hands on counts as its file's own.
fn circles(sources: &[Source], root: &str, folder: &str) -> Vec<BTreeSet<String>> {
    let prefix = format!("{folder}/");
    let here: Vec<&Source> =
        sources.iter().filter(|source| source.root == root && source.path.starts_with(&prefix)).collect();
    let mut homes: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for source in &here {
        for name in source.items().filter_map(name_of) {
            homes.entry(name).or_default().insert(&source.path);
        }
    }
    let paths: BTreeSet<&str> = here.iter().map(|source| source.path.as_str()).collect();
    // The file that a path of names leads to, from a directory of modules.
    let lead = |directory: &str, names: &[String]| -> Option<String> {
        let mut directory = directory.to_owned();
        let mut last = None;
        for name in names {
            let [file, module] = [format!("{directory}/{name}.rs"), format!("{directory}/{name}/mod.rs")];
            let found = [file, module].into_iter().find(|path| paths.contains(path.as_str()));
            match found {
                Some(found) => last = Some(found),
                None => {
                    let home = homes.get(name).filter(|homes| homes.len() == 1);
                    return home.and_then(|homes| homes.first()).map(|home| (*home).to_owned()).or(last);
                }
            }
            directory = format!("{directory}/{name}");
        }
        last
    };
    let mut edges: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for source in &here {
        let own = source.path.trim_end_matches("/mod.rs").trim_end_matches(".rs");
        // A `mod.rs` that declares and hands on is the table of contents of its folder.
        let handed_on: BTreeSet<String> = source.items().filter_map(handed_on).flatten().collect();
        for (path, _) in named(source) {
            let supers = path.iter().take_while(|part| *part == "super").count();
            let target = if path[0] == "crate" && path.get(1).is_some_and(|module| module == folder) {
                lead(folder, &path[2..])
            } else if supers > 0 {
                let mut directory = own;
                for _ in 0..supers {
                    directory = directory.rsplit_once('/').map_or("", |(above, _)| above);
                }
                (directory == folder || directory.starts_with(&prefix))
                    .then(|| lead(directory, &path[supers..]))
                    .flatten()
            } else if path[0] == "self" && !path.last().is_some_and(|name| handed_on.contains(name)) {
                lead(own, &path[1..])
            } else {
                None
            };
            if let Some(target) = target.filter(|target| *target != source.path) {
                edges.entry(&source.path).or_default().insert(target);
            }
        }
    }
    let reach = |from: &str| {
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let mut open = vec![from.to_owned()];
        while let Some(path) = open.pop() {
            for next in edges.get(path.as_str()).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<String>> = paths.iter().map(|path| (*path, reach(path))).collect();
    let mut circles: BTreeSet<BTreeSet<String>> = BTreeSet::new();
    for (path, to) in &reached {
        let circle: BTreeSet<String> = to
            .iter()
            .filter(|other| reached.get(other.as_str()).is_some_and(|back| back.contains(*path)))
            .cloned()
            .collect();
        if !circle.is_empty() {
            circles.insert(circle);
        }
    }
    let mut circles: Vec<BTreeSet<String>> = circles.into_iter().collect();
    circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    circles
}

/// The names that a `pub use` hands on.
fn handed_on(item: &Item) -> Option<Vec<String>> {
    fn names(tree: &UseTree, found: &mut Vec<String>) {
        match tree {
            UseTree::Path(path) => names(&path.tree, found),
            UseTree::Name(name) => found.push(name.ident.to_string()),
            UseTree::Rename(rename) => found.push(rename.ident.to_string()),
            UseTree::Glob(_) => {}
            UseTree::Group(group) => group.items.iter().for_each(|tree| names(tree, found)),
        }
    }
    let Item::Use(item) = item else { return None };
    if matches!(item.vis, syn::Visibility::Inherited) {
        return None;
    }
    let mut found = Vec::new();
    names(&item.tree, &mut found);
    Some(found)
}

/// All circles of files, with where they are.
fn all_circles(sources: &[Source]) -> Vec<(String, BTreeSet<String>)> {
    let folders: BTreeSet<(&str, &str)> =
        sources.iter().filter_map(|source| Some((source.root, source.path.split_once('/')?.0))).collect();
    let in_folder = |(root, folder)| {
        circles(sources, root, folder).into_iter().map(move |circle| (format!("{root}/{folder}"), circle))
    };
    folders.into_iter().flat_map(in_folder).collect()
}

/// How often each name is that of a type.
fn uses_of_names<'c>(counts: impl Iterator<Item = &'c Count>) -> BTreeMap<&'c str, usize> {
    let mut names = BTreeMap::new();
    for name in counts.flat_map(|count| &count.types) {
        *names.entry(name.as_str()).or_default() += 1;
    }
    names
}

/// Of how many types another one has the name, in hundred.
fn shared_percent(names: &BTreeMap<&str, usize>) -> usize {
    let shared: usize = names.values().filter(|uses| **uses > 1).sum();
    shared * 100 / names.values().sum::<usize>().max(1)
}

// ---- What the figures may be ----

/// Types that share their name with another, in hundred. It was 10 when this was written.
const SHARED_NAMES_MAX: usize = 15;

const FIELDS_MAX: usize = 20;

/// Parameters beside `self`, in the session and anywhere else.
const PARAMETERS_MAX: (usize, usize) = (5, 7);

/// Folders in which files still lead back to themselves, and in how many files at most. Others have no circle, and none of
/// these may grow.
const CIRCLES: [(&str, usize); 8] = [
    ("crates/core/src/auth", 2),
    ("crates/core/src/session", 24),
    ("crates/core/src/topology", 2),
    ("src/admin", 2),
    ("src/cli", 2),
    ("src/config", 6),
    ("src/metrics", 2),
    ("src/monitor", 3),
];

#[test]
fn figures_stay_within_their_bounds() {
    let sources = sources();
    let counts: Vec<(&Source, Count)> = sources.iter().map(|source| (source, Count::of(source))).collect();
    let mut complaints = Vec::new();
    let names = uses_of_names(counts.iter().map(|(_, count)| count));
    let percent = shared_percent(&names);
    if percent > SHARED_NAMES_MAX {
        let shared: Vec<&str> = names.iter().filter(|(_, uses)| **uses > 1).map(|(name, _)| *name).collect();
        complaints.push(format!("{percent} % of the types share their names: {}", shared.join(", ")));
    }
    for (source, count) in &counts {
        let of_session = source.root == "crates/core/src" && source.module() == "session";
        let most = if of_session { PARAMETERS_MAX.0 } else { PARAMETERS_MAX.1 };
        for Function { name, parameters, .. } in count.functions.iter().filter(|it| it.parameters > most) {
            complaints.push(format!("{}: {name} has {parameters} parameters: make a struct of them", source.path));
        }
        for (name, fields, _) in count.structs.iter().filter(|(_, fields, _)| *fields > FIELDS_MAX) {
            complaints
                .push(format!("{}: {name} has {fields} fields: some of them are a thing of their own", source.path));
        }
    }
    for (folder, circle) in all_circles(&sources) {
        let most = CIRCLES.iter().find(|(known, _)| *known == folder).map_or(0, |(_, most)| *most);
        if circle.len() > most {
            let files: Vec<&str> = circle.iter().map(String::as_str).collect();
            complaints.push(format!("{folder}: files lead back to themselves: {}", files.join(" ")));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn circles_shared_names_and_many_fields_are_found() {
    let sources = [
        Source::new("src", "a/b.rs", "use super::c::C; pub struct B { x: C, y: u8 } fn f(x: u8, y: u8) {}"),
        Source::new("src", "a/c.rs", "use super::b::B; pub struct C(B); mod d { struct B; }"),
        Source::new("src", "a/e.rs", "use super::c::C; struct E(C);"),
    ];
    let circle = ["a/b.rs", "a/c.rs"].map(str::to_owned).into();
    assert_eq!(all_circles(&sources), [("src/a".to_owned(), circle)]);
    let counts: Vec<Count> = sources.iter().map(Count::of).collect();
    assert_eq!(shared_percent(&uses_of_names(counts.iter())), 50, "two of four");
    assert_eq!((counts[0].structs[0].1, counts[0].functions[0].parameters), (2, 2));
}

/// Prints a line of the table.
fn row(what: &str, value: impl std::fmt::Display) {
    println!("| {what} | {value} |");
}

#[test]
fn figures() {
    let sources = sources();
    let counts: Vec<(&Source, Count)> = sources.iter().map(|source| (source, Count::of(source))).collect();
    println!("| what | now |\n|---|---|");

    let mut lines: Vec<usize> = counts.iter().flat_map(|(_, count)| &count.functions).map(|f| f.lines).collect();
    lines.sort_unstable();
    row("files, functions", format!("{}, {}", sources.len(), lines.len()));
    row("lines of a function: median, 95 %, largest", {
        let at = |share: usize| lines[(lines.len() - 1) * share / 100];
        format!("{}, {}, {}", at(50), at(95), at(100))
    });

    let names = uses_of_names(counts.iter().map(|(_, count)| count));
    let all: usize = names.values().sum();
    let shared: usize = names.values().filter(|uses| **uses > 1).sum();
    let percent = shared_percent(&names);
    row("types that share their name with another", format!("{shared} of {all} ({percent} %)"));
    let mut often: Vec<(&str, usize)> = names.into_iter().filter(|(_, uses)| *uses > 2).collect();
    often.sort_by_key(|(name, uses)| (std::cmp::Reverse(*uses), *name));
    let often: Vec<String> = often.iter().map(|(name, uses)| format!("{name} ×{uses}")).collect();
    row("of those, more than twice", often.join(", "));

    let session: Vec<&(&Source, Count)> =
        counts.iter().filter(|(source, _)| source.path.starts_with("session/")).collect();
    let with_methods: Vec<usize> =
        session.iter().filter_map(|(_, count)| count.methods.get("Session")).copied().filter(|n| *n > 0).collect();
    row("`Session`: methods, in files", format!("{}, {}", with_methods.iter().sum::<usize>(), with_methods.len()));
    let largest = |counts: &[&(&Source, Count)]| {
        let mut structs: Vec<(String, usize, usize)> =
            counts.iter().flat_map(|(_, count)| count.structs.iter().cloned()).collect();
        structs.sort_by_key(|(_, fields, _)| std::cmp::Reverse(*fields));
        let largest =
            structs.iter().take(3).map(|(name, fields, truths)| format!("{name} {fields} ({truths} booleans)"));
        largest.collect::<Vec<_>>().join(", ")
    };
    row("largest structs of the session, in fields", largest(&session));
    row("largest structs anywhere", largest(&counts.iter().collect::<Vec<_>>()));
    let many = |counts: &[&(&Source, Count)]| {
        let many = counts.iter().flat_map(|(_, count)| &count.functions).filter(|function| function.parameters > 5);
        let many: Vec<String> = many.map(|function| format!("{} {}", function.name, function.parameters)).collect();
        if many.is_empty() { "none".to_owned() } else { many.join(", ") }
    };
    row("functions of the session with more than 5 parameters", many(&session));
    row("functions anywhere with more than 5 parameters", many(&counts.iter().collect::<Vec<_>>()));

    let tied = all_circles(&sources).into_iter().map(|(_, circle)| {
        let files: Vec<&str> = circle.iter().map(|path| path.trim_end_matches(".rs")).collect();
        format!("{}: {}", files.len(), files.join(" "))
    });
    let tied: Vec<String> = tied.collect();
    row("circles of files", if tied.is_empty() { "none".to_owned() } else { tied.join("; ") });
    let from_frontend = sources.iter().filter(|source| source.root == "src" && source.module() == "admin");
    let from_frontend =
        from_frontend.flat_map(named).filter(|(path, _)| path.len() > 2 && path[0] == "crate" && path[1] == "frontend");
    row("names that `admin` takes from `frontend`", from_frontend.count());
}

#[test]
fn the_documents_name_files_that_are_there() {
    let mut missing = Vec::new();
    for page in ["docs/architecture.md", "CONTRIBUTING.md"] {
        let text = std::fs::read_to_string(folder(page)).unwrap();
        // Every second part stands between backticks, where no block of code is open.
        let prose = text.split("```").step_by(2).collect::<String>();
        let paths = prose.split('`').skip(1).step_by(2).filter(|path| {
            path.contains('/') && path.chars().all(|letter| letter.is_ascii_alphanumeric() || "/._-".contains(letter))
        });
        let is_there = |path: &str| ["", "src", CORE].iter().any(|root| folder(root).join(path).exists());
        missing.extend(paths.filter(|path| !is_there(path)).map(|path| format!("{page}: {path}")));
    }
    assert!(missing.is_empty(), "there is no such file:\n{}", missing.join("\n"));
}
