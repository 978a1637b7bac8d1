//! libpq's connection strings, both forms, into one list of parameters. The rules are those of the PostgreSQL manual,
//! "Connection Strings" (34.1.1). What the parameters mean is for `upstream`.
//!
//! The text holds a password, and a slip in it (an `@` that should be `%40`) can move the password anywhere. So no
//! message repeats any of the text, but for parameter names that are plain words.

use super::{mistake::Wrong, parameters::is_plain as is_word};

/// A parameter, its percent signs and backslashes undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameter {
    pub name: String,
    pub value: String,
}

/// Reads a URL or a keyword string. In a URL with several hosts, `host` and `port` are lists with commas as in a
/// keyword string.
pub(super) fn parse(text: &str) -> Result<Vec<Parameter>, Vec<Wrong>> {
    let text = unquoted(text.trim());
    if let Some(rest) = after_scheme(text) {
        return url(rest);
    }
    if let Some(rest) = text.strip_prefix("jdbc:postgresql:") {
        return jdbc(rest);
    }
    let is_keywords = text.split_once('=').is_some_and(|(first, _)| is_word(first.trim()));
    if is_keywords {
        return keywords(text).map_err(|wrong| vec![wrong]);
    }
    let mend = "write it like postgres://user:password@host:5432/database or host=… user=… dbname=…";
    Err(vec![Wrong::new("is neither a PostgreSQL URL nor a keyword string", mend)])
}

/// Without the quotes that files of environment variables may leave around a value.
fn unquoted(text: &str) -> &str {
    let within = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(text)
}

/// Names of PostgreSQL in URLs: libpq's, and those that object mappers have for their adapters. A driver may be named behind
/// a plus sign, as SQLAlchemy does.
const SCHEMES: [&str; 9] =
    ["postgres", "postgresql", "postgis", "pgsql", "psql", "pg", "ecto", "timescaledb", "timescalegis"];

/// What follows the scheme of a URL.
fn after_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once("://")?;
    let (name, driver) = scheme.split_once('+').unwrap_or((scheme, "none"));
    let is_driver = !driver.is_empty() && driver.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let is_known = SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(name));
    (is_known && is_driver).then_some(rest)
}

/// As pgjdbc has it: without a host, or even without slashes, the server is on this machine.
fn jdbc(rest: &str) -> Result<Vec<Parameter>, Vec<Wrong>> {
    let mut parameters = url(rest.strip_prefix("//").unwrap_or(&format!("/{}", rest.trim_start_matches('/'))))?;
    if !parameters.iter().any(|parameter| matches!(&*parameter.name, "host" | "hostaddr")) {
        parameters.push(Parameter { name: "host".to_owned(), value: "localhost".to_owned() });
    }
    Ok(parameters)
}

/// A name in a URL, also of a driver that has dashes or brackets in it.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.[]".contains(&byte))
}

const ENCODE: &str = "write @ as %40, / as %2F, : as %3A, ? as %3F, # as %23 and % as %25 in user and password";

/// `[user[:password]@][host[:port],…][/database][?name=value&…]`, after the scheme.
fn url(rest: &str) -> Result<Vec<Parameter>, Vec<Wrong>> {
    let (before_query, query) = rest.split_once('?').map_or((rest, None), |(before, query)| (before, Some(query)));
    let (authority, database) = before_query.split_once('/').map_or((before_query, None), |(a, d)| (a, Some(d)));
    let (login, hosts) = authority.split_once('@').map_or((None, authority), |(login, hosts)| (Some(login), hosts));
    let is_torn = hosts.contains('@') || database.is_some_and(|database| database.contains(['@', '/']));
    if is_torn || login.is_none() && query.is_some_and(|query| query.contains('@')) && hosts.contains(':') {
        return Err(vec![Wrong::new("cannot be taken apart: there is an @ or / too many", ENCODE)]);
    }
    let mut parts = Parts::default();
    if let Some(login) = login {
        let (user, password) = login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
        parts.add("user", Some(user));
        parts.add("password", password);
    }
    parts.add_hosts(hosts);
    parts.add("dbname", database);
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some((name, value)) if is_name(name) => parts.add_any(name, value),
            _ => parts.wrong.push(Wrong::new("has a parameter after ? that is no name=value", ENCODE)),
        }
    }
    if parts.wrong.is_empty() { Ok(parts.parameters) } else { Err(parts.wrong) }
}

#[derive(Default)]
struct Parts {
    parameters: Vec<Parameter>,
    wrong: Vec<Wrong>,
}

impl Parts {
    /// A part that counts only when it is not empty, as for libpq.
    fn add(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.add_any(name, value);
        }
    }

    fn add_any(&mut self, name: &str, value: &str) {
        match decode(value) {
            Some(value) => self.parameters.push(Parameter { name: name.to_owned(), value }),
            None => self.wrong.push(Wrong::new(format!("has a broken % in `{name}`"), ENCODE)),
        }
    }

    /// Hosts without their brackets, and ports, as two lists of the same length.
    fn add_hosts(&mut self, hosts: &str) {
        if hosts.is_empty() {
            return;
        }
        let (mut names, mut ports) = (Vec::new(), Vec::new());
        for host in hosts.split(',') {
            let Some((name, port)) = split_host(host) else {
                let mend = "write it like @host:5432/ or @[::1]:5432/";
                self.wrong.push(Wrong::new("has a host that cannot be read", mend));
                return;
            };
            names.push(name);
            ports.push(port);
        }
        self.add("host", Some(&names.join(",")));
        if ports.iter().any(|port| !port.is_empty()) {
            self.add("port", Some(&ports.join(",")));
        }
    }
}

/// A host without its brackets, and its port or nothing.
fn split_host(host: &str) -> Option<(&str, &str)> {
    let Some(rest) = host.strip_prefix('[') else { return Some(host.split_once(':').unwrap_or((host, ""))) };
    let (name, port) = rest.split_once(']')?;
    if port.is_empty() { Some((name, "")) } else { Some((name, port.strip_prefix(':')?)) }
}

/// Undoes percent signs; `None` when one is broken, stands for NUL, or the result is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let code = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(code).ok().filter(|code| *code != 0)?);
    }
    String::from_utf8(bytes).ok()
}

/// `name = value` with spaces between, values plain or in single quotes, a backslash before what is to be taken as is.
fn keywords(text: &str) -> Result<Vec<Parameter>, Wrong> {
    const QUOTE: &str = "put values with spaces in single quotes, and a backslash before ' and \\";
    let mut parameters: Vec<Parameter> = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|letter: char| letter == '=' || letter.is_whitespace()).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let value = after.trim_start().strip_prefix('=').filter(|_| is_word(name));
        let Some(value) = value else {
            let place = parameters.last().map_or(String::new(), |last| format!(" after the value of `{}`", last.name));
            return Err(Wrong::new(format!("has something{place} that is no name=value"), QUOTE));
        };
        let (value, after) = keyword_value(value.trim_start())
            .ok_or_else(|| Wrong::new(format!("has an open quote in the value of `{name}`"), QUOTE))?;
        parameters.push(Parameter { name: name.to_owned(), value });
        rest = after.trim_start();
    }
    Ok(parameters)
}

/// The value at the beginning and what follows it; `None` when its quote is not closed.
fn keyword_value(text: &str) -> Option<(String, &str)> {
    let (body, is_quoted) = text.strip_prefix('\'').map_or((text, false), |body| (body, true));
    let mut value = String::new();
    let mut letters = body.char_indices();
    while let Some((index, letter)) = letters.next() {
        match letter {
            '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
            '\'' if is_quoted => return Some((value, &body[index + 1..])),
            letter if !is_quoted && letter.is_whitespace() => return Some((value, &body[index..])),
            letter => value.push(letter),
        }
    }
    (!is_quoted).then_some((value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let parsed = parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"));
        let parsed: Vec<_> = parsed.iter().map(|p| (p.name.as_str(), p.value.as_str())).collect();
        assert_eq!(parsed, expected, "{text}");
    }

    #[test]
    fn urls() {
        check("postgres://", &[]);
        check("postgresql://h", &[("host", "h")]);
        check("postgres://u@h", &[("user", "u"), ("host", "h")]);
        check(
            "postgres://u:p@h:1/d",
            &[("user", "u"), ("password", "p"), ("host", "h"), ("port", "1"), ("dbname", "d")],
        );
        check("postgres://u:p%40%2f%25@h", &[("user", "u"), ("password", "p@/%"), ("host", "h")]);
        check("postgres://u:p:q#!@h", &[("user", "u"), ("password", "p:q#!"), ("host", "h")]);
        check("postgres://a:1,b:2/d", &[("host", "a,b"), ("port", "1,2"), ("dbname", "d")]);
        check("postgres://a,b:2/d", &[("host", "a,b"), ("port", ",2"), ("dbname", "d")]);
        check("postgres://[::1]:5433/d", &[("host", "::1"), ("port", "5433"), ("dbname", "d")]);
        check("postgres://[::1],[2001:db8::1]:2", &[("host", "::1,2001:db8::1"), ("port", ",2")]);
        check("postgres:///d?host=/s&port=5433", &[("dbname", "d"), ("host", "/s"), ("port", "5433")]);
        check("postgres://%2Frun%2Fpg/d", &[("host", "/run/pg"), ("dbname", "d")]);
        check("postgres://h?user=u%20v&password=", &[("host", "h"), ("user", "u v"), ("password", "")]);
        check(" postgres://h/d?a=b=c&\n", &[("host", "h"), ("dbname", "d"), ("a", "b=c")]);
        for scheme in [
            "postgresql+psycopg2",
            "postgresql+asyncpg",
            "postgresql+psycopg",
            "postgres+pg8000",
            "postgis",
            "POSTGRESQL",
            "ecto",
            "pgsql",
            "jdbc:postgresql",
        ] {
            check(&format!("{scheme}://u@h:1/d"), &[("user", "u"), ("host", "h"), ("port", "1"), ("dbname", "d")]);
            check(&format!("\"{scheme}://h/d\""), &[("host", "h"), ("dbname", "d")]);
        }
        check("jdbc:postgresql:d?user=u", &[("dbname", "d"), ("user", "u"), ("host", "localhost")]);
        check("jdbc:postgresql:///d", &[("dbname", "d"), ("host", "localhost")]);
        check("postgres://h?x-a=1&options[b]=2", &[("host", "h"), ("x-a", "1"), ("options[b]", "2")]);
    }

    #[test]
    fn keyword_strings() {
        check("host=a", &[("host", "a")]);
        check("host = a  port=1", &[("host", "a"), ("port", "1")]);
        check("password='a b' user=c", &[("password", "a b"), ("user", "c")]);
        check(r"password='it\'s \\ me'", &[("password", r"it's \ me")]);
        check(r"password=a\ b", &[("password", "a b")]);
        check("password='' host=a,b", &[("password", ""), ("host", "a,b")]);
        check("user=a=b", &[("user", "a=b")]);
        check("user= host=a", &[("user", "host=a")]);
    }

    #[test]
    fn broken_strings_are_refused_without_repeating_them() {
        for text in [
            "",
            "sesame",
            "mysql://u:sesame@h/d",
            "jdbc:mysql://h/d?password=sesame",
            "prisma+postgres://sesame@h",
            "postgres+://u:sesame@h/d",
            "postgres:/h",
            "postgres://u:sesame@ses@h/d",
            "postgres://u:se/same@h/d",
            "postgres://u:1/sesame?sesame@h/d",
            "postgres://u:sesame%@h",
            "postgres://u:sesame%0@h",
            "postgres://u:sesame%00@h",
            "postgres://u:%ff%fe@h",
            "postgres://u:sesame?sesame=1@h/d",
            "postgres://u:p@[::1",
            "postgres://u:p@[::1]5432",
            "postgres://h?sesame",
            "postgres://h?=x",
            "postgres://h/a/b",
            "password=sesame sesame",
            "password='sesame",
            "password=x 1sesame=y",
            "host=a 'b'",
            "=x",
        ] {
            let wrong = parse(text).expect_err(text);
            assert!(!wrong.is_empty());
            for wrong in wrong {
                assert!(!format!("{} {}", wrong.what, wrong.mend).contains("sesame"), "{text}: {wrong:?}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text: String) {
            let _ = parse(&text);
            let _ = parse(&format!("postgres://{text}"));
            let _ = parse(&format!("host={text}"));
        }

        #[test]
        fn encoded_passwords_come_back(password in "[^\0]{1,20}") {
            let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let parsed = parse(&format!("postgres://u:{encoded}@h")).unwrap();
            proptest::prop_assert_eq!(&parsed[1].value, &password);
            let quoted = password.replace('\\', "\\\\").replace('\'', "\\'");
            let parsed = parse(&format!("user=u password='{quoted}'")).unwrap();
            proptest::prop_assert_eq!(&parsed[1].value, &password);
        }
    }
}
