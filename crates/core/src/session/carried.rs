//! The settings that a session carries from one server connection to the next, and the texts that bring them there.
//!
//! What a client has set is never guessed from its SET statements: when a transaction may have changed settings, the
//! server is asked for their values after its end, so that ROLLBACK, SET LOCAL and savepoints need no rules of ours.

use std::{collections::BTreeSet, fmt::Write, hash::Hasher};

use super::{date_style, listen::Channel, steps::counted};

/// Settings by name, sorted; values in the server's own spelling once they have been on a server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Carried {
    pairs: Vec<(Box<str>, Box<str>)>,
}

/// How to bring a server connection from one set of settings to another.
#[derive(Debug, PartialEq, Eq)]
pub struct Replay {
    /// One simple query, which is one implicit transaction: it happens as a whole or not at all.
    pub sql: String,
    /// Whether it can be refused though it was accepted before (a role may be gone): then the client's statement must
    /// not be sent before this is known to have succeeded.
    pub may_fail: bool,
}

impl Carried {
    /// From pairs in any order; a later value of the same name wins. Names are folded to lower case, as PostgreSQL
    /// compares them without regard to case.
    ///
    /// What a value leaves open it takes from the earlier one, as a server does that is given both.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Carried {
        let mut carried = Carried::default();
        for (name, value) in pairs {
            match carried.get(&name.to_ascii_lowercase()).and_then(|before| date_style::upon(name, before, value)) {
                Some(whole) => carried.set(name, &whole),
                None => carried.set(name, value),
            }
        }
        carried
    }

    pub fn set(&mut self, name: &str, value: &str) {
        let name = name.to_ascii_lowercase();
        match self.pairs.binary_search_by(|(key, _)| (**key).cmp(&name)) {
            Ok(at) => self.pairs[at].1 = value.into(),
            Err(at) => self.pairs.insert(at, (name.into(), value.into())),
        }
    }

    pub fn remove(&mut self, name: &str) {
        let name = name.to_ascii_lowercase();
        if let Ok(at) = self.pairs.binary_search_by(|(key, _)| (**key).cmp(&name)) {
            self.pairs.remove(at);
        }
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) {
        self.pairs.retain(|(name, value)| keep(name, value));
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.pairs.binary_search_by(|(key, _)| (**key).cmp(name)).ok()?;
        Some(&self.pairs[at].1)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        counted(self.pairs.iter()).map(|(name, value)| (&**name, &**value))
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// A hash of what may change the meaning of a statement's text when it is analysed or planned: everything but the
    /// settings that are known not to.
    pub fn planner_hash(&self) -> u64 {
        const HARMLESS: [&str; 12] = [
            "application_name",
            "client_encoding",
            "client_min_messages",
            "extra_float_digits",
            "idle_in_transaction_session_timeout",
            "idle_session_timeout",
            "lock_timeout",
            "log_min_duration_statement",
            "statement_timeout",
            "tcp_keepalives_idle",
            "tcp_user_timeout",
            "transaction_timeout",
        ];
        let mut hasher = std::hash::DefaultHasher::new();
        for (name, value) in self.iter().filter(|(name, _)| !HARMLESS.contains(name)) {
            hasher.write(name.as_bytes());
            hasher.write_u8(0);
            hasher.write(value.as_bytes());
            hasher.write_u8(0);
        }
        hasher.finish()
    }

    /// The text that brings a server connection which carries `self` to `wanted`; `None` when nothing differs.
    pub fn replay(&self, wanted: &Carried) -> Option<Replay> {
        let (gone, changed) = self.differences(wanted);
        let may_fail = gone.iter().chain(&changed).any(|name| !is_safe(name));
        // Who the server connection has become may lack the right to set the rest, so it becomes itself again first; then
        // who it is to be, last: the session's user before the role, which it resets.
        let anew = gone.iter().chain(&changed).any(|name| !is_safe(name) && !is_identity(name));
        let anew_or = |name: &str| anew || self.get(name) != wanted.get(name);
        let user = anew_or("session_authorization");
        let role = user || anew_or("role");
        let gone = gone.into_iter().filter(|name| !is_identity(name));
        // What the new value leaves open comes from the default, and not from what another session has set.
        let open = changed.iter().copied().filter(|name| self.get(name).is_some() && wanted.leaves_open(name));
        let old = [("role", role), ("session_authorization", user)]
            .into_iter()
            .filter(|(name, it)| *it && self.get(name).is_some());
        let new =
            [("session_authorization", user), ("role", role)].into_iter().filter(|(_, it)| *it).map(|(name, _)| name);
        let changed: Vec<_> = changed.iter().copied().filter(|name| !is_identity(name)).chain(new).collect();

        let mut sql = String::new();
        for name in old.map(|(name, _)| name).chain(gone).chain(open) {
            sql.push_str("RESET ");
            push_name(name, &mut sql);
            sql.push(';');
        }
        let mut before = "SELECT ";
        for (name, value) in changed.into_iter().filter_map(|name| Some((name, wanted.get(name)?))) {
            sql.push_str(std::mem::replace(&mut before, ","));
            sql.push_str("pg_catalog.set_config(");
            push_literal(name, &mut sql);
            sql.push(',');
            push_literal(value, &mut sql);
            sql.push_str(",false)");
        }
        (!sql.is_empty()).then_some(Replay { sql, may_fail })
    }

    /// Whether the value of a setting builds on the one that is there: what it becomes is known only once it was brought to
    /// a server.
    pub fn leaves_open(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| date_style::leaves_open(name, value))
    }

    /// The names that `wanted` lacks, and those that it has with another value.
    fn differences<'a>(&'a self, wanted: &'a Carried) -> (Vec<&'a str>, Vec<&'a str>) {
        let gone = self.iter().map(|(name, _)| name).filter(|name| wanted.get(name).is_none());
        let changed = wanted.iter().filter(|(name, value)| self.get(name) != Some(value)).map(|(name, _)| name);
        (gone.collect(), changed.collect())
    }
}

/// Settings that say who the session is.
fn is_identity(name: &str) -> bool {
    matches!(name, "session_authorization" | "role")
}

/// Settings that anybody may set at any time to a value that was valid before.
fn is_safe(name: &str) -> bool {
    const SAFE: [&str; 28] = [
        "application_name",
        "bytea_output",
        "check_function_bodies",
        "client_encoding",
        "client_min_messages",
        "constraint_exclusion",
        "cursor_tuple_fraction",
        "datestyle",
        "default_transaction_deferrable",
        "default_transaction_isolation",
        "default_transaction_read_only",
        "effective_cache_size",
        "escape_string_warning",
        "extra_float_digits",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
        "intervalstyle",
        "jit",
        "lock_timeout",
        "maintenance_work_mem",
        "quote_all_identifiers",
        "row_security",
        "search_path",
        "standard_conforming_strings",
        "statement_timeout",
        "synchronous_commit",
        "timezone",
        "work_mem",
    ];
    SAFE.binary_search(&name).is_ok()
}

/// A setting's name, each part quoted: custom names have dots.
fn push_name(name: &str, out: &mut String) {
    for (at, part) in name.split('.').enumerate() {
        if at > 0 {
            out.push('.');
        }
        out.push('"');
        out.push_str(&part.replace('"', "\"\""));
        out.push('"');
    }
}

/// A string constant that reads the same whatever `standard_conforming_strings` says.
pub fn push_literal(value: &str, out: &mut String) {
    out.push_str("E'");
    for character in value.chars() {
        if matches!(character, '\'' | '\\') {
            out.push(character);
        }
        out.push(character);
    }
    out.push('\'');
}

/// Whether the search path names the schema of temporary objects.
pub fn names_temporary(carried: &Carried) -> bool {
    let is_named = |path: &str| path.as_bytes().windows(7).any(|part| part.eq_ignore_ascii_case(b"pg_temp"));
    !carried.is_empty() && carried.get("search_path").is_some_and(is_named)
}

/// A list of texts with what stands before it; nothing when there are none.
fn push_names<'a>(before: &str, names: impl IntoIterator<Item = &'a Box<[u8]>>, out: &mut String) {
    let mut first = true;
    for name in counted(names.into_iter()) {
        out.push_str(if std::mem::take(&mut first) { before } else { "," });
        push_literal(&String::from_utf8_lossy(name), out);
    }
    out.push_str(if first { "" } else { ")" });
}

/// A row when the session has a temporary object. 2615 is pg_namespace: whatever depends on the temporary schema lies in
/// it, be it a table, a function or a type.
pub const TEMPORARY_QUERY: &str = "\
(SELECT 'p','temporary object',objid::text FROM pg_catalog.pg_depend \
WHERE refclassid=2615 AND refobjid=pg_catalog.pg_my_temp_schema() LIMIT 1)";

/// Most prepared statements that one answer is to tell of. With more the session keeps its server connection: those that
/// were not told of would be nobody's there.
const STATEMENTS_ASKED_MAX: usize = 1_000;

/// What is asked of a server after a transaction that may have changed session state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Probe {
    #[default]
    Nothing,
    /// The values of these settings, lower case.
    Settings(BTreeSet<Box<str>>),
    /// All settings of the session, and whether it has state that cannot move.
    Everything(BTreeSet<Box<str>>),
}

impl Probe {
    pub fn add_setting(&mut self, name: &str) {
        if name == "session_authorization" {
            // It ends the role, too.
            self.add_setting("role");
        }
        match self {
            Probe::Nothing => *self = Probe::Settings(BTreeSet::from([name.into()])),
            Probe::Settings(names) | Probe::Everything(names) => {
                if !names.contains(name) {
                    names.insert(name.into());
                }
            }
        }
    }

    pub fn add_everything(&mut self) {
        *self = match std::mem::take(self) {
            Probe::Nothing => Probe::Everything(BTreeSet::new()),
            Probe::Settings(names) | Probe::Everything(names) => Probe::Everything(names),
        };
    }

    /// The question. Each row of the answer is (kind, name, value): kind `s` is a setting with its value, NULL when the
    /// name is unknown; kind `p` is state that pins, its name says which;
    /// kind `l` is a channel that is listened to.
    pub fn sql(&self, carried: &Carried) -> String {
        let mut sql = String::new();
        let names = match self {
            Probe::Nothing => return sql,
            Probe::Settings(names) => names.clone(),
            Probe::Everything(names) => {
                let custom = carried.iter().map(|(name, _)| name).filter(|name| name.contains('.')).map(Box::from);
                let mut names: BTreeSet<Box<str>> = names.iter().cloned().chain(custom).collect();
                names.insert("role".into());
                names.extend(carried.get("session_authorization").map(|_| "session_authorization".into()));
                names
            }
        };
        for name in counted(names.into_iter()) {
            sql.push_str(if sql.is_empty() { "" } else { " UNION ALL " });
            sql.push_str("SELECT 's',");
            push_literal(&name, &mut sql);
            sql.push_str(",pg_catalog.current_setting(");
            push_literal(&name, &mut sql);
            sql.push_str(",true)");
        }
        if matches!(self, Probe::Everything(_)) {
            let _ = write!(
                sql,
                " UNION ALL SELECT 's',name,pg_catalog.current_setting(name) FROM pg_catalog.pg_settings \
                 WHERE source='session' AND name<>'transaction_isolation' AND name<>'transaction_read_only' \
                 AND name<>'transaction_deferrable'\
                 UNION ALL {TEMPORARY_QUERY}\
                 UNION ALL (SELECT 'p','advisory lock',objid::text FROM pg_catalog.pg_locks \
                 WHERE locktype='advisory' AND pid=pg_catalog.pg_backend_pid() LIMIT 1)\
                 UNION ALL SELECT 'l',NULL,c FROM pg_catalog.pg_listening_channels() c \
                 UNION ALL (SELECT 'p','hold cursor',name FROM pg_catalog.pg_cursors WHERE is_holdable LIMIT 1)"
            );
        }
        sql
    }

    /// As [`Probe::sql_after_reset`], with the prepared statements that SQL may have made or taken away: `used` by name,
    /// and when everything is asked also every other one made by SQL, except for the `strange` ones of other clients.
    /// Each has a row of the kind `q` with its name and, in one text, whether SQL made it, its types and its text.
    pub fn question(
        &self,
        carried: &Carried,
        reset: &BTreeSet<Box<str>>,
        used: &BTreeSet<Box<[u8]>>,
        strange: &[Box<[u8]>],
    ) -> String {
        let mut sql = self.sql_after_reset(carried, reset);
        let everything = matches!(self, Probe::Everything(_));
        if used.is_empty() && !everything {
            return sql;
        }
        if !sql.is_empty() {
            sql.push_str(" UNION ALL ");
        }
        sql.push_str(
            "(SELECT 'q',name,pg_catalog.concat(from_sql,parameter_types::pg_catalog.oid[],' ',statement) \
             FROM pg_catalog.pg_prepared_statements WHERE ",
        );
        if everything {
            sql.push_str("from_sql");
            push_names(" AND name NOT IN (", strange, &mut sql);
            push_names(" OR name IN (", used, &mut sql);
        } else {
            push_names("name IN (", used, &mut sql);
        }
        // One more, so that it is seen when there are.
        let _ = write!(sql, " LIMIT {})", STATEMENTS_ASKED_MAX + 1);
        sql
    }

    /// The question when a RESET of these settings was sent: whether it has taken effect is not to be seen from a value.
    /// Each has a row of the kind `r` with its name when the session does not set it.
    pub fn sql_after_reset(&self, carried: &Carried, reset: &BTreeSet<Box<str>>) -> String {
        let mut sql = self.sql(carried);
        for (at, name) in counted(reset.iter()).enumerate() {
            sql.push_str(match at {
                0 => {
                    " UNION ALL SELECT 'r',name,NULL FROM pg_catalog.pg_settings \
                     WHERE source<>'session' AND pg_catalog.lower(name) IN ("
                }
                _ => ",",
            });
            push_literal(name, &mut sql);
        }
        sql.push_str(if reset.is_empty() { "" } else { ")" });
        sql
    }
}

/// What a server answered to a [`Probe`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProbeAnswer {
    /// Name and value; `None` when there is no such setting (any more).
    pub settings: Vec<(String, Option<String>)>,
    /// Settings that were RESET and are not the session's any more.
    pub reset: Vec<String>,
    /// The first state found that cannot move.
    pub pin: Option<String>,
    pub prepared: Vec<Prepared>,
    /// What the connection listens to.
    pub channels: Vec<Channel>,
    /// There was more than is kept.
    pub cut_short: bool,
}

impl ProbeAnswer {
    pub fn is_empty(&self) -> bool {
        let ProbeAnswer { settings, reset, pin, prepared, channels, cut_short } = self;
        let has_rows = !(settings.is_empty() && reset.is_empty() && prepared.is_empty() && channels.is_empty());
        !has_rows && pin.is_none() && !cut_short
    }
}

/// A prepared statement that a server has told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    pub name: Box<[u8]>,
    /// By PREPARE, and not by the protocol.
    pub by_sql: bool,
    /// Number and oids of the parameter types, as in a Parse message.
    pub types: Box<[u8]>,
    /// As the client sent it: with PREPARE in front when SQL made it.
    pub text: Box<[u8]>,
}

impl Prepared {
    /// From a name and `t{23,25} TEXT`.
    fn read(name: &[u8], value: &[u8]) -> Option<Prepared> {
        let (by_sql, rest) = value.split_first()?;
        let space = rest.iter().position(|byte| *byte == b' ')?;
        let (types, text) = (std::str::from_utf8(&rest[..space]).ok()?, &rest[space + 1..]);
        let types = types.strip_prefix('{')?.strip_suffix('}')?;
        let oids: Result<Vec<u32>, _> = types.split(',').filter(|oid| !oid.is_empty()).map(str::parse).collect();
        let oids = oids.ok()?;
        let mut wire = u16::try_from(oids.len()).ok()?.to_be_bytes().to_vec();
        wire.extend(oids.into_iter().flat_map(u32::to_be_bytes));
        Some(Prepared { name: name.into(), by_sql: *by_sql == b't', types: wire.into(), text: text.into() })
    }
}

impl ProbeAnswer {
    pub fn row(&mut self, columns: &[Option<&[u8]>]) {
        let text = |column: usize| {
            columns.get(column).copied().flatten().map(|value| String::from_utf8_lossy(value).into_owned())
        };
        match text(0).as_deref() {
            Some("s") => self.settings.push((text(1).unwrap_or_default(), text(2))),
            Some("r") => self.reset.extend(text(1)),
            Some("l") => self.channels.extend(columns.get(2).copied().flatten().map(Channel::from)),
            Some("p") if self.pin.is_none() => self.pin = text(1),
            Some("q") => {
                let read = if let [_, Some(name), Some(value)] = columns { Prepared::read(name, value) } else { None };
                match read {
                    Some(prepared) if self.prepared.len() < STATEMENTS_ASKED_MAX => self.prepared.push(prepared),
                    Some(_) | None => self.cut_short = true,
                }
            }
            _ => {}
        }
    }

    /// The settings after the answer. With [`Probe::Everything`] what the answer does not name is gone.
    pub fn apply(&self, probe: &Probe, before: &Carried) -> Carried {
        let mut after = match probe {
            Probe::Everything(_) => Carried::default(),
            _ => before.clone(),
        };
        for (name, value) in &self.settings {
            match value.as_deref() {
                None => after.remove(name),
                Some("none") if name == "role" => after.remove(name),
                Some(value) => after.set(name, value),
            }
        }
        for name in &self.reset {
            after.remove(name);
        }
        after
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn carried(pairs: &[(&str, &str)]) -> Carried {
        Carried::new(pairs.iter().copied())
    }

    #[test]
    fn replays() {
        let check = |from: &[(&str, &str)], to: &[(&str, &str)], sql: Option<&str>, may_fail: bool| {
            let replay = carried(from).replay(&carried(to));
            assert_eq!(replay.as_ref().map(|replay| replay.sql.as_str()), sql);
            assert_eq!(replay.is_some_and(|replay| replay.may_fail), may_fail);
        };
        check(&[], &[], None, false);
        check(&[("TimeZone", "UTC")], &[("timezone", "UTC")], None, false);
        check(&[("timezone", "UTC")], &[], Some("RESET \"timezone\";"), false);
        let german = [("datestyle", "German, DMY")];
        for (value, sql) in [
            ("ISO", "RESET \"datestyle\";SELECT pg_catalog.set_config(E'datestyle',E'ISO',false)"),
            ("ISO, MDY", "SELECT pg_catalog.set_config(E'datestyle',E'ISO, MDY',false)"),
        ] {
            check(&german, &[("DateStyle", value)], Some(sql), false);
            check(&[], &[("DateStyle", value)], Some(sql.trim_start_matches("RESET \"datestyle\";")), false);
        }
        check(
            &[("timezone", "UTC")],
            &[("search_path", "it's, \\x"), ("timezone", "CET")],
            Some(
                "SELECT pg_catalog.set_config(E'search_path',E'it''s, \\\\x',false),\
                 pg_catalog.set_config(E'timezone',E'CET',false)",
            ),
            false,
        );
        check(
            &[],
            &[("role", "r"), ("session_authorization", "s"), ("work_mem", "1MB")],
            Some(
                "SELECT pg_catalog.set_config(E'work_mem',E'1MB',false),\
                 pg_catalog.set_config(E'session_authorization',E's',false),pg_catalog.set_config(E'role',E'r',false)",
            ),
            true,
        );
        check(&[("app.tenant", "1")], &[], Some("RESET \"app\".\"tenant\";"), true);
        // Another user may lack the right to what differs.
        check(
            &[("lo_compat_privileges", "on"), ("role", "r"), ("session_authorization", "s")],
            &[("session_authorization", "s"), ("timezone", "UTC")],
            Some(
                "RESET \"role\";RESET \"session_authorization\";RESET \"lo_compat_privileges\";\
                 SELECT pg_catalog.set_config(E'timezone',E'UTC',false),\
                 pg_catalog.set_config(E'session_authorization',E's',false)",
            ),
            true,
        );
        let both = [("role", "r"), ("session_authorization", "s")];
        check(
            &both,
            &[("role", "r"), ("session_authorization", "s"), ("timezone", "UTC")],
            Some("SELECT pg_catalog.set_config(E'timezone',E'UTC',false)"),
            false,
        );
        check(&both, &both[1..], Some("RESET \"role\";"), true);
        check(
            &both,
            &both[..1],
            Some(
                "RESET \"role\";RESET \"session_authorization\";\
              SELECT pg_catalog.set_config(E'role',E'r',false)",
            ),
            true,
        );
    }

    #[test]
    fn of_two_values_of_the_login_the_later_one_builds_on_the_earlier_one() {
        let both = |pairs: &[(&str, &str)]| carried(pairs).get("datestyle").map(str::to_owned).unwrap();
        assert_eq!(both(&[("datestyle", "SQL, DMY"), ("DateStyle", "iso")]), "iso, DMY");
        assert_eq!(both(&[("datestyle", "German"), ("datestyle", "ISO")]), "ISO, DMY");
        assert_eq!(both(&[("datestyle", "ISO"), ("datestyle", "German")]), "German");
        assert_eq!(both(&[("datestyle", "SQL"), ("datestyle", "European")]), "SQL, European");
    }

    #[test]
    fn the_safe_list_is_sorted_for_its_search() {
        for name in ["application_name", "timezone", "work_mem", "row_security"] {
            assert!(is_safe(name), "{name}");
        }
        assert!(!is_safe("role"));
    }

    #[test]
    fn answers() {
        let mut probe = Probe::default();
        probe.add_setting("timezone");
        probe.add_setting("timezone");
        let before = carried(&[("work_mem", "1MB")]);
        assert_eq!(probe.sql(&before), "SELECT 's',E'timezone',pg_catalog.current_setting(E'timezone',true)");
        let mut answer = ProbeAnswer::default();
        answer.row(&[Some(b"s"), Some(b"timezone"), Some(b"UTC")]);
        assert_eq!(answer.apply(&probe, &before), carried(&[("timezone", "UTC"), ("work_mem", "1MB")]));
        assert!(probe.sql_after_reset(&before, &["timezone".into()].into()).ends_with("lower(name) IN (E'timezone')"));
        let reset = ProbeAnswer { reset: vec!["TimeZone".into()], ..answer.clone() };
        assert_eq!(reset.apply(&probe, &before), before);

        let mut user = Probe::default();
        user.add_setting("session_authorization");
        assert_eq!(user, Probe::Settings(["role".into(), "session_authorization".into()].into()));

        probe.add_everything();
        answer.row(&[Some(b"s"), Some(b"role"), Some(b"none")]);
        answer.row(&[Some(b"s"), Some(b"app.gone"), None]);
        answer.row(&[Some(b"l"), None, Some(b"channel")]);
        answer.row(&[Some(b"p"), Some(b"prepare"), Some(b"name")]);
        assert_eq!(answer.apply(&probe, &before), carried(&[("timezone", "UTC")]));
        assert_eq!(answer.pin.as_deref(), Some("prepare"));
        assert_eq!(answer.channels, [Channel::from(&b"channel"[..])]);
    }

    #[test]
    fn more_statements_than_are_told_of_are_noticed() {
        let question = Probe::Everything(BTreeSet::new()).question(&carried(&[]), &[].into(), &[].into(), &[]);
        assert!(question.ends_with(&format!(" LIMIT {})", STATEMENTS_ASKED_MAX + 1)), "{question}");
        let mut answer = ProbeAnswer::default();
        for number in 0..=STATEMENTS_ASKED_MAX {
            assert!(!answer.cut_short, "{number}");
            answer.row(&[Some(b"q"), Some(format!("s{number}").as_bytes()), Some(b"t{23} PREPARE s AS SELECT 1")]);
        }
        assert!(answer.cut_short);
        let mut answer = ProbeAnswer::default();
        answer.row(&[Some(b"q"), Some(b"s"), Some(b"nonsense")]);
        assert!(answer.cut_short, "one that is not understood is there all the same");
    }

    proptest! {
        #[test]
        fn a_replay_of_equal_settings_is_none(pairs in prop::collection::vec(("[a-c]{1,2}", "[a-z]{0,3}"), 0..6)) {
            let one = Carried::new(pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())));
            prop_assert_eq!(one.replay(&one.clone()), None);
        }

        #[test]
        fn a_literal_never_ends_early(value in ".{0,20}") {
            let mut out = String::new();
            push_literal(&value, &mut out);
            let inner = &out[2..out.len() - 1];
            let mut characters = inner.chars();
            while let Some(character) = characters.next() {
                if matches!(character, '\'' | '\\') {
                    prop_assert_eq!(characters.next(), Some(character));
                }
            }
        }
    }
}
