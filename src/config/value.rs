//! What single values mean: texts, numbers, durations, choices and secrets, each with its bounds. A value that is
//! wrong is reported and `None`, so that the rest of the file can be checked as well.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::de::DeValue;
use zeroize::Zeroizing;

use super::{
    mistake::{Findings, Place, Wrong},
    raw::Item,
};
use poolhouse_core::{auth::Secret, session::nearest_word, sql::Pattern};

/// The longest duration anything may have.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(365 * DAY);
pub(super) const DURATION_DAY: Duration = Duration::from_secs(DAY);
const DAY: u64 = 24 * 3600;

/// How the check reaches what lies outside of the text that it reads: everything with an effect is handed in.
pub(super) struct Outside<'a> {
    /// Relative paths start here: where the file is.
    pub directory: PathBuf,
    /// The value of an environment variable.
    pub variable: &'a dyn Fn(&str) -> Result<String, String>,
    /// The text of a file.
    pub read: &'a dyn Fn(&Path) -> Result<String, String>,
    /// Whether the log can be filtered by this.
    pub filter: &'a dyn Fn(&str) -> Result<(), String>,
    /// What `workers = 0` stands for.
    pub cores: usize,
}

/// One value out of a closed set, by its name; `None` for what is not available yet.
pub(super) type Choice<'a, T> = (&'a str, Option<T>);

impl<'d> Item<'d> {
    /// Text that is not empty and holds no NUL, which PostgreSQL's protocol could not carry.
    pub fn text(&self, findings: &mut Findings) -> Option<&'d str> {
        let DeValue::String(text) = self.value else {
            self.wrong_kind("text", "write it in quotes", findings);
            return None;
        };
        if let Some(wrong) = unfit(text) {
            findings.wrong(&self.place, wrong);
            return None;
        }
        Some(text)
    }

    /// A whole number within `range`.
    pub fn whole(&self, range: RangeInclusive<usize>, findings: &mut Findings) -> Option<usize> {
        let bounds = format!("write a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(integer) = self.value else {
            self.wrong_kind("a whole number", &bounds, findings);
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.and_then(|number| usize::try_from(number).ok()).filter(|number| range.contains(number));
        if number.is_none() {
            findings.mistake(&self.place, format!("{integer} is out of range"), bounds);
        }
        number
    }

    /// A number greater than 0 and at most `most`, with or without a fraction.
    pub fn share(&self, most: f64, findings: &mut Findings) -> Option<f64> {
        self.number(|number| number > 0.0 && number <= most, format!("greater than 0 and at most {most}"), findings)
    }

    /// A number from 0 to `most`, with or without a fraction.
    pub fn weight(&self, most: f64, findings: &mut Findings) -> Option<f64> {
        self.number(|number| (0.0..=most).contains(&number), format!("from 0 to {most}"), findings)
    }

    fn number(&self, fits: impl Fn(f64) -> bool, range: String, findings: &mut Findings) -> Option<f64> {
        let bounds = format!("write a number {range}");
        let (text, number) = match self.value {
            DeValue::Integer(integer) => {
                (integer.to_string(), i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|n| n as f64))
            }
            DeValue::Float(float) => (float.to_string(), float.as_str().parse().ok()),
            _ => {
                self.wrong_kind("a number", &bounds, findings);
                return None;
            }
        };
        let number = number.filter(|number| fits(*number));
        if number.is_none() {
            findings.mistake(&self.place, format!("{text} is out of range"), bounds);
        }
        number
    }

    /// A duration within `range`.
    pub fn duration(&self, range: RangeInclusive<Duration>, findings: &mut Findings) -> Option<Duration> {
        let DeValue::String(text) = self.value else {
            let mend = match self.value {
                DeValue::Integer(number) => format!("write it with its unit, like \"{number}s\" ({UNITS})"),
                _ => format!("write it like \"30s\" ({UNITS})"),
            };
            self.wrong_kind("a duration", &mend, findings);
            return None;
        };
        let duration = parse_duration(text).and_then(|duration| within(text, duration, &range));
        duration.map_err(|wrong| findings.wrong(&self.place, wrong)).ok()
    }

    /// `true` or `false`.
    pub fn flag(&self, findings: &mut Findings) -> Option<bool> {
        let DeValue::Boolean(value) = self.value else {
            self.wrong_kind("true or false", "write true or false, without quotes", findings);
            return None;
        };
        Some(*value)
    }

    /// A limit of time: "0s" stands for none.
    pub fn time_limit(&self, findings: &mut Findings) -> Option<Option<Duration>> {
        let duration = self.duration(Duration::ZERO..=DURATION_MAX, findings)?;
        Some((!duration.is_zero()).then_some(duration))
    }

    /// A limit of time or of bytes, or a list of one of each; what is not named has no limit, and neither has "0s".
    pub fn lag_limits(&self, findings: &mut Findings) -> Option<(Option<Duration>, Option<u64>)> {
        const MEND: &str = "write it like \"10s\", \"64MB\" or [\"10s\", \"64MB\"]";
        let items =
            if matches!(self.value, DeValue::Array(_)) { self.list(MEND, findings) } else { vec![self.clone()] };
        let (mut time, mut bytes) = (None, None);
        for item in items {
            let twice = match item.value {
                DeValue::String(text) if text.ends_with(['B', 'b']) => bytes.replace(item.bytes(findings)?).is_some(),
                _ => time.replace(item.time_limit(findings)?).is_some(),
            };
            if twice {
                findings.mistake(&item.place, "is a second limit of its kind", "keep one of them");
                return None;
            }
        }
        Some((time.flatten(), bytes))
    }

    /// A size in bytes, of at least one.
    fn bytes(&self, findings: &mut Findings) -> Option<u64> {
        let text = self.text(findings)?;
        parse_bytes(text).map_err(|wrong| findings.wrong(&self.place, wrong)).ok()
    }

    /// One of `choices`; `instead` is said to who wants what is not available yet.
    pub fn choice<T: Copy>(&self, choices: &[Choice<'_, T>], instead: &str, findings: &mut Findings) -> Option<T> {
        let text = self.text(findings)?;
        let names = || choices.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name);
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, Some(value))) => return Some(*value),
            Some((_, None)) => findings.mistake(&self.place, format!("\"{text}\" is not available yet"), instead),
            None => {
                let known = names().collect::<Vec<_>>().join(" | ");
                let mend = match nearest_word(text, names()) {
                    Some(meant) => format!("did you mean \"{meant}\"? ({known})"),
                    None => format!("write {known}"),
                };
                findings.mistake(&self.place, format!("unknown value \"{text}\""), mend);
            }
        }
        None
    }

    /// The values of a list, each with its own line.
    pub fn list(&self, mend: &str, findings: &mut Findings) -> Vec<Item<'d>> {
        let DeValue::Array(values) = self.value else {
            self.wrong_kind("a list", mend, findings);
            return Vec::new();
        };
        let item = |(index, value): (usize, &'d toml::Spanned<DeValue<'d>>)| Item {
            place: Place { key: format!("{}[{index}]", self.place.key), line: Some(findings.line(value.span().start)) },
            value: value.get_ref(),
        };
        values.iter().enumerate().map(item).collect()
    }

    /// A password or what stands for it: `env:NAME`, `file:PATH`, plain, `md5…` or `SCRAM-SHA-256$…`. Messages never
    /// show what it is.
    pub fn secret(&self, outside: &Outside<'_>, findings: &mut Findings) -> Option<Secret> {
        let text = self.text(findings)?;
        secret(text, outside).map_err(|wrong| findings.wrong(&self.place, wrong)).ok()
    }

    /// A secret with which Poolhouse can log in to a server.
    pub fn server_secret(&self, outside: &Outside<'_>, findings: &mut Findings) -> Option<Secret> {
        let secret = self.secret(outside, findings)?;
        if matches!(secret, Secret::Scram(_)) {
            let what = "is a SCRAM-SHA-256 verifier, which proves passwords but cannot log in to a server";
            findings.mistake(&self.place, what, "give the password itself, as \"env:NAME\" or \"file:PATH\"");
            return None;
        }
        Some(secret)
    }

    pub fn not_yet(&self, instead: &str, findings: &mut Findings) {
        findings.mistake(&self.place, "not available yet", instead);
    }
}

/// Reads an optional item; absent and wrong ones are the default.
pub(super) fn or<'d, T>(item: &Option<Item<'d>>, default: T, read: impl FnOnce(&Item<'d>) -> Option<T>) -> T {
    item.as_ref().and_then(read).unwrap_or(default)
}

/// Names or regular expressions.
pub(super) fn patterns(item: &Item<'_>, functions: bool, findings: &mut Findings) -> Vec<Pattern> {
    const MEND: &str = "write it like [\"name\", \"/^regular_expression/\"]";
    let mut patterns = Vec::new();
    for entry in item.list(MEND, findings) {
        let Some(text) = entry.text(findings) else { continue };
        match Pattern::parse(text) {
            Err(why) => findings.mistake(&entry.place, format!("is no regular expression: {why}"), MEND),
            Ok(Pattern::Name(name)) if functions && name.contains('.') => {
                let mend = "write its name without the schema: all functions of the name are meant";
                findings.mistake(&entry.place, format!("\"{name}\" names a schema"), mend);
            }
            Ok(pattern) if functions && pattern.is_built_in_function() => {
                let what = format!("\"{text}\" is one of PostgreSQL's own functions");
                findings.mistake(&entry.place, what, "remove it: what these do is known");
            }
            Ok(pattern) => patterns.push(pattern),
        }
    }
    patterns
}

const UNITS: &str = "units: ms, s, m, h, d";

/// A whole number and its unit.
fn parse_duration(text: &str) -> Result<Duration, Wrong> {
    let digits = text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '_').len();
    let (number, unit) = text.split_at(digits);
    let bad = || Wrong::new(format!("\"{text}\" is not a duration"), format!("write it like \"30s\" ({UNITS})"));
    let number = number.replace('_', "");
    if number.is_empty() {
        return Err(bad());
    }
    let milliseconds: u64 = match unit.trim_start() {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => DAY * 1000,
        "" => {
            let mend = format!("write it with its unit, like \"{text}s\" ({UNITS})");
            return Err(Wrong::new(format!("\"{text}\" has no unit"), mend));
        }
        _ => return Err(bad()),
    };
    let total = number.parse::<u64>().ok().and_then(|number| number.checked_mul(milliseconds));
    let too_long = || Wrong::new(format!("\"{text}\" is too long"), format!("write at most {}", spell(DURATION_MAX)));
    total.map(Duration::from_millis).ok_or_else(too_long)
}

const SIZES: &str = "units: B, kB, MB, GB, TB";

/// A whole number and its unit, in PostgreSQL's units of memory.
fn parse_bytes(text: &str) -> Result<u64, Wrong> {
    let digits = text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '_').len();
    let (number, unit) = text.split_at(digits);
    let bad = || Wrong::new(format!("\"{text}\" is no size"), format!("write it like \"64MB\" ({SIZES})"));
    let shift = match unit.trim_start() {
        "B" => 0,
        "kB" => 10,
        "MB" => 20,
        "GB" => 30,
        "TB" => 40,
        _ => return Err(bad()),
    };
    let number: u64 = number.replace('_', "").parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(bad)
}

fn within(text: &str, duration: Duration, range: &RangeInclusive<Duration>) -> Result<Duration, Wrong> {
    let bound = |word: &str, limit: Duration| format!("write at {word} {}", spell(limit));
    if duration < *range.start() {
        return Err(Wrong::new(format!("\"{text}\" is too short"), bound("least", *range.start())));
    }
    if duration > *range.end() {
        return Err(Wrong::new(format!("\"{text}\" is too long"), bound("most", *range.end())));
    }
    Ok(duration)
}

fn spell(duration: Duration) -> String {
    format!("\"{}\"", spelled(duration))
}

/// A duration as the file writes it, without the quotes.
pub(super) fn spelled(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if (milliseconds > 0 || unit == "s") && milliseconds.is_multiple_of(size) {
            return format!("{}{unit}", milliseconds / size);
        }
    }
    format!("{milliseconds}ms")
}

fn unfit(text: &str) -> Option<Wrong> {
    if text.is_empty() {
        return Some(Wrong::new("is empty", "give it a value or remove the key"));
    }
    text.contains('\0').then(|| Wrong::new("holds a NUL byte", "remove it"))
}

/// What stands for a secret, made one.
pub(super) fn secret(text: &str, outside: &Outside<'_>) -> Result<Secret, Wrong> {
    fetch(text, outside).and_then(|text| parse_secret(&Zeroizing::new(text)))
}

fn fetch(text: &str, outside: &Outside<'_>) -> Result<String, Wrong> {
    if let Some(name) = text.strip_prefix("env:") {
        return (outside.variable)(name)
            .map_err(|why| Wrong::new(format!("the environment variable `{name}` {why}"), "set it"));
    }
    let Some(path) = text.strip_prefix("file:") else { return Ok(text.to_owned()) };
    let path = outside.directory.join(path);
    let content = (outside.read)(&path).map_err(|why| {
        Wrong::new(
            format!("the file {} {why}", path.display()),
            "relative paths start at the folder of the config file",
        )
    })?;
    let content = Zeroizing::new(content);
    let line = content.strip_suffix('\n').unwrap_or(&content);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

fn parse_secret(text: &str) -> Result<Secret, Wrong> {
    if let Some(wrong) = unfit(text) {
        return Err(Wrong::new(format!("the secret {}", wrong.what), wrong.mend));
    }
    Secret::parse(text).map_err(|error| Wrong::new(error.to_string(), "write it as PostgreSQL's pg_authid shows it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        let check = |text: &str, milliseconds: Option<u64>| {
            assert_eq!(parse_duration(text).ok(), milliseconds.map(Duration::from_millis), "{text}");
        };
        check("0s", Some(0));
        check("500ms", Some(500));
        check("30s", Some(30_000));
        check("10m", Some(600_000));
        check("1h", Some(3_600_000));
        check("1d", Some(86_400_000));
        check("1_000 s", Some(1_000_000));
        for wrong in
            ["", "s", "_s", "5", "-5s", "1.5s", "5 seconds", "5M", "99999999999999999999s", "18446744073709551615d"]
        {
            check(wrong, None);
        }
    }

    #[test]
    fn durations_are_spelled_as_they_are_read() {
        for text in ["1ms", "1500ms", "3s", "90s", "2m", "5h", "365d", "0s"] {
            assert_eq!(spell(parse_duration(text).unwrap()), format!("\"{text}\""));
        }
    }
}
