//! What a startup packet asks for: who, which database, which kind of connection, and which settings, with the switches
//! in `options` read as a server reads them (manual, "postgres", and libpq's parameter `options`).

use crate::{clients::About, net::Ends};
use poolhouse_core::session::{Carried, PoolhouseSettings};
use poolhouse_core::wire::{
    error::{Report, SqlState},
    reply,
    startup::{MINOR_VERSION, Parameters},
};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Session,
    /// Replication of the whole server: it has no database.
    Physical,
    /// Replication of one database.
    Logical,
}

/// What a startup packet asks for.
#[derive(Debug)]
pub struct StartupRequest {
    pub user: String,
    pub database: String,
    pub purpose: Purpose,
    options: String,
    /// Every other parameter, as it was sent.
    plain: Vec<(String, String)>,
}

impl StartupRequest {
    /// # Errors
    /// There is no user, or `replication` has an impossible value: the report has PostgreSQL's code and words.
    pub fn read(parameters: &Parameters) -> Result<StartupRequest, Report> {
        let user = parameters.value("user").filter(|user| !user.is_empty()).ok_or_else(|| {
            Report::fatal(SqlState::INVALID_AUTHORIZATION, "no PostgreSQL user name specified in startup packet")
        })?;
        let database = parameters.value("database").filter(|name| !name.is_empty()).unwrap_or(user);
        let plain = parameters.pairs.iter().filter(|(name, _)| {
            !matches!(name.as_str(), "user" | "database" | "replication" | "options") && !name.starts_with("_pq_.")
        });
        Ok(StartupRequest {
            user: user.to_owned(),
            database: database.to_owned(),
            purpose: purpose(parameters.value("replication").unwrap_or("false"))?,
            options: parameters.value("options").unwrap_or_default().to_owned(),
            plain: plain.cloned().collect(),
        })
    }

    /// Every setting once, by its name in lower case. Those in `options` are weaker, as in PostgreSQL, and `defaults`
    /// are weaker than both.
    ///
    /// # Errors
    /// A switch in `options` that no server understands.
    pub fn settings(&self, defaults: &[(String, String)]) -> Result<Vec<(String, String)>, Report> {
        let (options, plain): (Vec<_>, Vec<_>) = defaults.iter().partition(|(name, _)| name == "options");
        let mut weaker = Vec::new();
        for (_, options) in options {
            weaker.extend(switches(options)?);
        }
        let switches = switches(&self.options)?;
        let named = weaker.iter().chain(plain).chain(&switches).chain(&self.plain);
        let named = named.map(|(name, value)| (name.as_str(), value.as_str()));
        Ok(Carried::new(named).iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// What operators are told of it.
    pub fn about(&self, ends: Ends) -> About {
        let name = self.plain.iter().find(|(name, _)| name == "application_name");
        let application_name = name.map_or("", |(_, value)| value.as_str()).into();
        About { application_name, ends, replicates: self.purpose != Purpose::Session }
    }

    /// What a server is sent, besides user and database, for a connection of this client's own.
    pub fn own_parameters(&self) -> Vec<(String, String)> {
        let replication = match self.purpose {
            Purpose::Session => None,
            Purpose::Physical => Some("true"),
            Purpose::Logical => Some("database"),
        };
        let options = Some(self.options.as_str()).filter(|options| !options.is_empty());
        let named = [("replication", replication), ("options", options)];
        let named = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        let plain = self.plain.iter().filter(|(name, _)| !PoolhouseSettings::are_named_by(name));
        named.chain(plain.cloned()).collect()
    }
}

/// A truth value as PostgreSQL reads it, in any case and cut short where that is unambiguous; or `database`.
fn purpose(value: &str) -> Result<Purpose, Report> {
    if value == "database" {
        return Ok(Purpose::Logical);
    }
    let lower = value.to_ascii_lowercase();
    let means = |words: &[&str], shortest: usize| {
        lower.len() >= shortest && words.iter().any(|word| word.starts_with(lower.as_str()))
    };
    if means(&["true", "yes", "1"], 1) || lower == "on" {
        Ok(Purpose::Physical)
    } else if means(&["false", "no", "0"], 1) || means(&["off"], 2) {
        Ok(Purpose::Session)
    } else {
        Err(Report::fatal(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid value for parameter \"replication\": \"{value}\""),
        )
        .hint("Valid values are: \"false\", 0, \"true\", 1, \"database\"."))
    }
}

/// NegotiateProtocolVersion, when the client asks for more than we know; nothing otherwise.
pub fn negotiate(parameters: &Parameters) -> Vec<u8> {
    let unknown: Vec<&str> =
        parameters.pairs.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with("_pq_.")).collect();
    let mut out = Vec::new();
    if parameters.minor > MINOR_VERSION || !unknown.is_empty() {
        let minor = (3 << 16) | u32::from(parameters.minor.min(MINOR_VERSION));
        reply::negotiate_protocol_version(minor, &unknown, &mut out);
    }
    out
}

/// Switches that take a value, which may stand in the same word or be the next one.
const WITH_VALUE: &str = "BCcDdfhkNprStvW-";

/// The settings that the switches in `options` stand for, in their order.
fn switches(text: &str) -> Result<Vec<(String, String)>, Report> {
    let mut settings = Vec::new();
    let mut words = split_words(text).into_iter();
    while let Some(word) = words.next() {
        if word == "--" {
            return words.next().map_or(Ok(settings), |word| Err(invalid(&word)));
        }
        let mut letters = word.strip_prefix('-').filter(|rest| !rest.is_empty()).ok_or_else(|| invalid(&word))?.chars();
        while let Some(letter) = letters.next() {
            if !WITH_VALUE.contains(letter) {
                settings.extend(switch(letter, "").ok_or_else(|| invalid(&word))?);
                continue;
            }
            let value = match letters.as_str() {
                "" => words.next().ok_or_else(|| invalid(&word))?,
                rest => rest.to_owned(),
            };
            settings.extend(match letter {
                'c' | '-' => vec![assignment(letter, &value)?],
                _ => switch(letter, &value).ok_or_else(|| invalid(&word))?,
            });
            break;
        }
    }
    Ok(settings)
}

/// `-c name=value` or `--name=value`.
fn assignment(letter: char, text: &str) -> Result<(String, String), Report> {
    let spelled = if letter == 'c' { "-c " } else { "--" };
    let (name, value) = text.split_once('=').ok_or_else(|| {
        Report::fatal(SqlState::SYNTAX_ERROR, format!("{spelled}{} requires a value", text.replace('-', "_")))
    })?;
    Ok((name.replace('-', "_"), value.to_owned()))
}

/// What a switch of one letter sets. Whether a client may set it at all is the server's to say, so that its words are
/// those of a direct login. `None` when there is no such switch, or it cannot have this value.
fn switch(letter: char, value: &str) -> Option<Vec<(String, String)>> {
    let pairs = match letter {
        'B' => vec![("shared_buffers", value)],
        'd' => return Some(debug_settings(value)),
        'e' => vec![("datestyle", "euro")],
        'F' => vec![("fsync", "false")],
        'f' => vec![(plan_kind(value)?, "false")],
        'h' => vec![("listen_addresses", value)],
        'i' => vec![("listen_addresses", "*")],
        'k' => vec![("unix_socket_directories", value)],
        'l' => vec![("ssl", "true")],
        'N' => vec![("max_connections", value)],
        'O' => vec![("allow_system_table_mods", "true")],
        'P' => vec![("ignore_system_indexes", "true")],
        'p' => vec![("port", value)],
        'S' => vec![("work_mem", value)],
        's' => vec![("log_statement_stats", "true")],
        't' => vec![(statistics_kind(value)?, "true")],
        'W' => vec![("post_auth_delay", value)],
        // Servers take these, too, and do nothing about them on a client's word.
        'b' | 'C' | 'D' | 'E' | 'j' | 'n' | 'r' | 'T' | 'v' => vec![],
        _ => return None,
    };
    Some(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// `-d LEVEL`.
fn debug_settings(value: &str) -> Vec<(String, String)> {
    let digits: String = value.trim_start().chars().take_while(char::is_ascii_digit).collect();
    let level: u32 = digits.parse().unwrap_or(0);
    let messages = if level > 0 { format!("debug{level}") } else { "notice".to_owned() };
    let more = [
        (2, "log_statement", "all"),
        (3, "debug_print_parse", "true"),
        (4, "debug_print_plan", "true"),
        (5, "debug_print_rewritten", "true"),
    ];
    let more = more.iter().filter(|(from, ..)| level >= *from);
    let more = more.map(|(_, name, value)| ((*name).to_owned(), (*value).to_owned()));
    std::iter::once(("log_min_messages".to_owned(), messages)).chain(more).collect()
}

/// `-f KIND`: a kind of plan that is not wanted.
fn plan_kind(value: &str) -> Option<&'static str> {
    Some(match value.chars().next()? {
        's' => "enable_seqscan",
        'i' => "enable_indexscan",
        'o' => "enable_indexonlyscan",
        'b' => "enable_bitmapscan",
        't' => "enable_tidscan",
        'n' => "enable_nestloop",
        'm' => "enable_mergejoin",
        'h' => "enable_hashjoin",
        _ => return None,
    })
}

/// `-t pa`, `-t pl` or `-t e`: statistics for the log.
fn statistics_kind(value: &str) -> Option<&'static str> {
    match value {
        _ if value.starts_with("pa") => Some("log_parser_stats"),
        _ if value.starts_with("pl") => Some("log_planner_stats"),
        _ if value.starts_with('e') => Some("log_executor_stats"),
        _ => None,
    }
}

fn invalid(word: &str) -> Report {
    Report::fatal(SqlState::SYNTAX_ERROR, format!("invalid command-line argument for server process: {word}"))
        .hint("Try \"postgres --help\" for more information.")
}

/// Words end at white space; a backslash keeps the character behind it.
fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.get_or_insert_default().extend(characters.next()),
            space if space.is_ascii_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn read(list: &[(&str, &str)]) -> Result<StartupRequest, Report> {
        StartupRequest::read(&Parameters { minor: 0, pairs: pairs(list) })
    }

    #[test]
    fn options_are_read_as_postgresql_reads_them() {
        let check = |text: &str, expected: &[(&str, &str)]| assert_eq!(switches(text).unwrap(), pairs(expected));
        check("", &[]);
        check("-c work_mem=1MB", &[("work_mem", "1MB")]);
        check("-cwork_mem=1MB --search-path=a", &[("work_mem", "1MB"), ("search_path", "a")]);
        check(r"-c search_path=a,\ b", &[("search_path", "a, b")]);
        check(r"  --x=\\ ", &[("x", r"\")]);
        check("-e -S 4096 -fs", &[("datestyle", "euro"), ("work_mem", "4096"), ("enable_seqscan", "false")]);
        check("-esS4096", &[("datestyle", "euro"), ("log_statement_stats", "true"), ("work_mem", "4096")]);
        check("-n -T -D /x -tpl --", &[("log_planner_stats", "true")]);
        check("-d 2", &[("log_min_messages", "debug2"), ("log_statement", "all")]);
        for bad in ["-c", "-c nothing", "--nothing", "work_mem=1MB", "-fx", "-t x", "-Z", "-", "-e x", "-- x", "-S"] {
            assert_eq!(switches(bad).unwrap_err().code, SqlState::SYNTAX_ERROR, "{bad}");
        }
        assert_eq!(switches("-c a-b").unwrap_err().message, "-c a_b requires a value");
    }

    #[test]
    fn startup_packets() {
        let options = "-c x.y=1 -c timezone=CET";
        let wanted = read(&[("user", "a"), ("TimeZone", "UTC"), ("options", options), ("_pq_.z", "1")]).unwrap();
        assert_eq!((wanted.user.as_str(), wanted.database.as_str()), ("a", "a"));
        assert_eq!(wanted.settings(&[]).unwrap(), pairs(&[("timezone", "UTC"), ("x.y", "1")]));
        let defaults = pairs(&[("options", "-c x.y=2 -c a.b=3"), ("timezone", "CET"), ("search_path", "s")]);
        let expected = pairs(&[("a.b", "3"), ("search_path", "s"), ("timezone", "UTC"), ("x.y", "1")]);
        assert_eq!(wanted.settings(&defaults).unwrap(), expected);
        assert_eq!(wanted.own_parameters(), pairs(&[("options", options), ("TimeZone", "UTC")]));
        assert_eq!(read(&[]).unwrap_err().code, SqlState::INVALID_AUTHORIZATION);
    }

    #[test]
    fn replication_is_asked_for_in_many_words() {
        let purpose = |value| read(&[("user", "a"), ("replication", value)]).map(|wanted| wanted.purpose);
        for value in ["true", "on", "YES", "1", "t"] {
            assert_eq!(purpose(value), Ok(Purpose::Physical), "{value}");
        }
        for value in ["false", "off", "no", "0", "F", "of"] {
            assert_eq!(purpose(value), Ok(Purpose::Session), "{value}");
        }
        assert_eq!(purpose("database"), Ok(Purpose::Logical));
        for value in ["", "o", "maybe", "data", "truely", "10"] {
            assert_eq!(purpose(value).unwrap_err().code, SqlState::INVALID_PARAMETER_VALUE, "{value}");
        }
        let wanted = read(&[("user", "a"), ("replication", "1")]).unwrap();
        assert_eq!(wanted.own_parameters(), pairs(&[("replication", "true")]));
    }

    #[test]
    fn versions_are_negotiated_down() {
        let negotiated = |minor, list: &[(&str, &str)]| negotiate(&Parameters { minor, pairs: pairs(list) });
        assert!(negotiated(0, &[]).is_empty());
        assert!(negotiated(2, &[]).is_empty());
        assert_eq!(negotiated(9, &[]), b"v\0\0\0\x0c\0\x03\0\x02\0\0\0\0");
        assert_eq!(negotiated(0, &[("_pq_.a", "")]), b"v\0\0\0\x13\0\x03\0\0\0\0\0\x01_pq_.a\0");
    }
}
