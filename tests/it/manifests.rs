//! What the manifests name is used: each crate under `[dependencies]` by the sources that are built into the program,
//! each under `[dev-dependencies]` by tests or benches, and each of the workspace's by one of its crates.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;

use crate::tidy::{FILES, Source, named, root_of};

/// The directory of each manifest of the workspace.
const CRATES: [&str; 3] = ["", "crates/core", "crates/lab"];

/// Crates whose code has another name.
const NAMES: [(&str, &str); 1] = [("md-5", "md5")];

fn below(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The crates that a section of the manifest in a directory names, as code names them.
fn section(of: &str, names: &[&str]) -> BTreeSet<String> {
    let text = fs::read_to_string(below(of).join("Cargo.toml")).unwrap();
    let manifest = toml::de::DeTable::parse(&text).unwrap();
    let mut table = manifest.get_ref();
    for name in names {
        match table.get(*name).and_then(|value| value.get_ref().as_table()) {
            Some(below) => table = below,
            None => return BTreeSet::new(),
        }
    }
    let names = table.keys().map(|name| name.get_ref().as_ref());
    names
        .map(|name| NAMES.iter().find(|(of, _)| *of == name).map_or(name, |(_, code)| code).replace('-', "_"))
        .collect()
}

/// The words that stand for crates in what is built into a program: the first of each path. Tests are left out.
fn words_of_program(root: &str) -> BTreeSet<String> {
    let files = FILES.0.iter().filter(|[of, ..]| of == root);
    let sources = files.map(|[root, path, text]| Source::new(root_of(root), path, text));
    sources.flat_map(|source| named(&source).into_iter().map(|(path, _)| path[0].clone())).collect()
}

/// Every word of the tests: those between the sources, and the targets of their own.
fn words_of_tests(of: &str) -> BTreeSet<String> {
    fn collect(tokens: TokenStream, words: &mut BTreeSet<String>) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => collect(group.stream(), words),
                TokenTree::Ident(word) => drop(words.insert(word.to_string())),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }
    /// Parts of files that only tests see.
    struct Parts<'a>(&'a mut BTreeSet<String>);
    impl<'a> Visit<'a> for Parts<'_> {
        fn visit_item(&mut self, item: &'a syn::Item) {
            if crate::tidy::is_of_tests(crate::tidy::attributes(item)) {
                collect(quote::ToTokens::to_token_stream(item), self.0);
            } else {
                syn::visit::visit_item(self, item);
            }
        }
    }

    let root = below(of).join("src");
    let root = root.strip_prefix(below("")).unwrap().to_str().unwrap();
    let mut words = BTreeSet::new();
    for [_, _, text] in FILES.1.iter().filter(|[of, ..]| of == root) {
        collect(text.parse().unwrap(), &mut words);
    }
    for [_, _, text] in FILES.0.iter().filter(|[of, ..]| of == root) {
        Parts(&mut words).visit_file(&syn::parse_file(text).unwrap());
    }
    for directory in ["tests", "benches"] {
        let mut paths = Vec::new();
        if below(of).join(directory).is_dir() {
            crate::tidy::collect(&below(of).join(directory), &mut paths);
        }
        for path in paths.iter().filter(|path| !path.starts_with(below("tests/fuzz"))) {
            collect(fs::read_to_string(path).unwrap().parse().unwrap(), &mut words);
        }
    }
    words
}

#[test]
fn every_dependency_is_used() {
    let mut unused = Vec::new();
    for of in CRATES {
        let root = if of.is_empty() { "src".to_owned() } else { format!("{of}/src") };
        for (part, words) in [("dependencies", words_of_program(&root)), ("dev-dependencies", words_of_tests(of))] {
            let named = section(of, &[part]);
            unused.extend(named.difference(&words).map(|name| format!("{of}/Cargo.toml: [{part}] {name}")));
        }
    }
    assert!(unused.is_empty(), "no source uses these:\n{}", unused.join("\n"));
}

#[test]
fn every_dependency_of_the_workspace_is_somebodys() {
    let parts = |of: &'static str| ["dependencies", "dev-dependencies"].map(|part| section(of, &[part]));
    let named: BTreeSet<String> = CRATES.into_iter().flat_map(parts).flatten().collect();
    let nobodys = section("", &["workspace", "dependencies"]);
    let nobodys: Vec<&String> = nobodys.difference(&named).collect();
    assert!(nobodys.is_empty(), "no crate names these of [workspace.dependencies]: {nobodys:?}");
}
