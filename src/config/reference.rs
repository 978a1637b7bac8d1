//! `config/reference.toml`, from the declarations: a file with every key, its default or an example, and its sentence.

use super::{
    Pooling, Settings, cluster,
    declare::{Field, Key, Section, Usual},
    keys,
};
use crate::net::{ClientTlsFiles, TlsFiles};
use poolhouse_core::topology::Routing;

const WIDTH: usize = 120;

const PREFACE: &[&str] = &[
    "Poolhouse: every key, its default, its unit and what it does. `poolhouse check --reference` writes this file.",
    "",
    "Keys that are written out show their defaults (but for the nodes, names and users, which are examples). Keys behind a \
     single # have no default, or one that other keys decide: the comment says what happens without them. A key that is \
     unknown, misspelled or out of range is an error that names its line; `poolhouse check FILE` says all of them at once.",
    "",
    "Durations: a whole number and a unit, \"500ms\", \"30s\", \"10m\", \"1h\" or \"1d\", at most \"365d\". Where it says so, \
     \"0s\" is no limit.",
    "Secrets: \"env:NAME\" (an environment variable), \"file:PATH\" (its closing newline does not count), \"md5…\" or \
     \"SCRAM-SHA-256$…\" as PostgreSQL stores them, or the password itself. A password that begins with \"env:\" or \
     \"file:\" must come from a variable or a file.",
    "Paths that are relative start at the folder of this file.",
];

/// The text of the file.
pub fn reference() -> String {
    let mut page = Page(String::new());
    PREFACE.iter().for_each(|text| page.comment(text));

    page.section("[server]", keys::Server::SECTION);
    page.example("[[listener]]", keys::Listener::SECTION);
    page.section("[tls]", keys::Tls::SECTION);
    page.section("[auth]", keys::Auth::SECTION);
    page.section("[pool]", keys::Pool::SECTION);

    page.section("[clusters.main]", keys::Cluster::SECTION);
    page.section("[clusters.main.tls]", keys::ClusterTls::SECTION);
    page.section("[clusters.main.health]", keys::Health::SECTION);
    page.section("[clusters.main.failover]", keys::Failover::SECTION);
    page.section("[clusters.main.routing]", keys::Routing::SECTION);
    page.example("[[clusters.main.routing.rules]]", keys::Rule::SECTION);

    page.section("[databases.app]", keys::Database::SECTION);
    page.over("[databases.app.pool]", "Any key of [pool].", keys::Pool::SECTION, "size");
    page.over("[databases.app.routing]", "Any key of [clusters.X.routing].", keys::Routing::SECTION, "reads");
    page.section("[users.alice]", keys::User::SECTION);
    let about = "Any key of [pool], for this user's pools in every database.";
    page.over("[users.alice.pool]", about, keys::Pool::SECTION, "mode");

    page.section("[admin]", keys::Admin::SECTION);
    page.example("[coordination]", keys::Coordination::SECTION);
    page.section("[log]", keys::Log::SECTION);
    page.0
}

/// Keys with their values, as the file has them.
type Written = Vec<(&'static str, String)>;

/// The keys of a section that have a place in the settings, with what they are without a word on them.
pub(super) fn defaults(section: &Section) -> Written {
    let settings = Settings::default();
    let cluster = cluster::defaults("main", Vec::new(), Vec::new());
    match section.at {
        "server" => written(keys::Server::FIELDS, &settings),
        "tls" => written(keys::Tls::FIELDS, &ClientTlsFiles::default()),
        "server.tcp" => written(keys::Tcp::FIELDS, &settings.frontend.tcp),
        "auth" => written(keys::Auth::FIELDS, &settings.auth),
        "pool" => written(keys::Pool::FIELDS, &Pooling::default()),
        "clusters.*" => written(keys::Cluster::FIELDS, &cluster),
        "clusters.*.tls" => written(keys::ClusterTls::FIELDS, &TlsFiles::default()),
        "clusters.*.health" => written(keys::Health::FIELDS, &cluster),
        "clusters.*.failover" => written(keys::Failover::FIELDS, &cluster),
        "clusters.*.routing" => written(keys::Routing::FIELDS, &Routing::default()),
        "admin" => written(keys::Admin::FIELDS, &settings.admin),
        "log" => written(keys::Log::FIELDS, &settings.log),
        // Those of the others have no defaults.
        _ => Vec::new(),
    }
}

fn written<T>(fields: &[Field<T>], settings: &T) -> Written {
    let value = |field: &Field<T>| Some((field.key.name, (field.value.as_ref()?.write)(settings)));
    fields.iter().filter_map(value).collect()
}

struct Page(String);

impl Page {
    /// A section under its head, with all its keys.
    fn section(&mut self, head: &str, section: Section) {
        self.0.push('\n');
        self.comments(section.about, None);
        self.line(head);
        let defaults = defaults(&section);
        for key in section.keys {
            let default = defaults.iter().find(|(name, _)| *name == key.name).map(|(_, value)| value.as_str());
            self.key(key, default);
        }
    }

    fn key(&mut self, key: &Key, default: Option<&str>) {
        let line = match (key.usual, default) {
            (Usual::Default, Some(value)) | (Usual::Asked(value), _) => format!("{} = {value}", key.name),
            (Usual::Nothing(value) | Usual::Depends(value), _) if !value.is_empty() => {
                format!("# {} = {value}", key.name)
            }
            // A section, which has a head of its own.
            _ => return,
        };
        self.comments(key.about, Some(key));
        if key.name == "nodes" {
            self.tables(keys::Node::SECTION);
        }
        self.line(&line);
    }

    /// What the tables among the nodes may hold.
    fn tables(&mut self, section: Section) {
        let mut pairs = Vec::new();
        for key in section.keys {
            self.comment(&format!("{}: {}", key.name, told(key)));
            if let Usual::Nothing(value) | Usual::Asked(value) | Usual::Depends(value) = key.usual {
                pairs.push(format!("{} = {value}", key.name));
            }
        }
        self.comment(&format!("nodes = [{{ {} }}]", pairs.join(", ")));
    }

    /// A section that is an example as a whole.
    fn example(&mut self, head: &str, section: Section) {
        self.0.push('\n');
        self.comments(section.about, None);
        self.line(&format!("# {head}"));
        for key in section.keys {
            if let Usual::Nothing(value) | Usual::Asked(value) | Usual::Depends(value) = key.usual {
                self.line(&format!("# {} = {value}", key.name));
            }
        }
    }

    /// A section that goes over another one, with one key of that.
    fn over(&mut self, head: &str, about: &str, section: Section, name: &str) {
        self.0.push('\n');
        self.comment(about);
        self.line(head);
        if let Some((_, value)) = defaults(&section).iter().find(|(known, _)| *known == name) {
            self.line(&format!("{name} = {value}"));
        }
    }

    fn comments(&mut self, lines: &[&str], key: Option<&Key>) {
        if !lines.is_empty() {
            self.comment(&key.map_or_else(|| sentence(lines), told));
        }
    }

    /// Broken into lines.
    fn comment(&mut self, text: &str) {
        let mut line = "#".to_owned();
        for word in text.split_whitespace() {
            if line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.line(&line);
                line = "#".to_owned();
            }
            line.push(' ');
            line.push_str(word);
        }
        self.line(&line);
    }

    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }
}

/// Lines of a declaration as one text.
pub(super) fn sentence(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// What a key means, with its bounds.
pub(super) fn told(key: &Key) -> String {
    let text = sentence(key.about);
    match (key.shape)().bounds() {
        Some([least, most]) => {
            text.replace("{bounds}", &format!("{least} to {most}")).replace("{least}", &least).replace("{most}", &most)
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::kind::Shape, *};

    /// When it is not, `make reference` renews it.
    #[test]
    fn the_file_is_current() {
        assert_eq!(include_str!("../../config/reference.toml"), reference(), "renew it with `make reference`");
    }

    /// The part of docs/configuration.md about a section.
    fn documented(at: &str) -> String {
        let head = |line: &str| line.strip_prefix("## [").or(line.strip_prefix("### [")).map(str::to_owned);
        let is_its = |line: &str| head(line).is_some_and(|head| head.trim_matches(['[', ']']) == at.replace('*', "X"));
        let page = include_str!("../../docs/configuration.md");
        let lines = page.lines().skip_while(|line| !is_its(line)).skip(1).take_while(|line| !line.starts_with('#'));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_documentation_has_a_row_for_each_key_with_its_default() {
        for section in keys::SECTIONS {
            // What is in a table of its own is told in the row of that.
            let parent = match section.at {
                "server.tcp" => "server",
                "clusters.*.nodes" => "clusters.*",
                "clusters.*.routing.rules" => "clusters.*.routing",
                // Sections, and what is not available yet.
                "" | "tls" | "clusters.*.tls" | "coordination" => continue,
                at => at,
            };
            let (page, defaults) = (documented(parent), defaults(section));
            for key in
                section.keys.iter().filter(|key| !(key.shape)().is_section() && !matches!((key.shape)(), Shape::NotYet))
            {
                let at = format!("{}.{}", section.at, key.name);
                let rows: Vec<_> =
                    page.lines().filter(|line| line.starts_with('|') && line.contains(key.name)).collect();
                assert!(!rows.is_empty(), "docs/configuration.md lacks {at}");
                let default = defaults.iter().find(|(name, _)| *name == key.name);
                if let (Usual::Default, Some((_, value))) = (key.usual, default) {
                    let has_it = rows.iter().any(|row| row.contains(&format!("`{value}`")));
                    assert!(has_it, "docs/configuration.md: the default of {at} is {value}\n{rows:#?}");
                }
            }
        }
    }

    #[test]
    fn every_key_is_told_with_its_bounds_and_choices() {
        for (section, key) in
            keys::SECTIONS.iter().flat_map(|section| section.keys.iter().map(move |key| (section, key)))
        {
            let (at, shape, text) = (format!("{}.{}", section.at, key.name), (key.shape)(), sentence(key.about));
            assert_eq!(shape.bounds().is_some(), text.contains("{bounds}") || text.contains("{least}"), "{at}: bounds");
            assert!(!["{bounds", "{least", "{most"].iter().any(|mark| told(key).contains(mark)), "{at}");
            if let Shape::OneOf(choices) = shape {
                choices.iter().for_each(|choice| assert!(text.contains(&format!("\"{choice}\"")), "{at}: {choice}"));
            }
        }
    }
}
