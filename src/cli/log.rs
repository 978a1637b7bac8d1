//! The log: where it goes, in which format, and that nothing from outside can forge a line of it.

use std::{
    env, fmt,
    io::{self, IsTerminal, Stderr, Write, stderr},
};

use tracing_subscriber::{
    EnvFilter,
    field::RecordFields,
    fmt::{
        FormatFields,
        format::{DefaultFields, Writer},
        layer,
    },
    layer::SubscriberExt,
    registry, reload,
    util::SubscriberInitExt,
};

use crate::{
    admin::SetLevel,
    config::{self, Log, LogFormat},
    text::{Plain, is_control},
};

/// Logs to standard error from here on. The environment variable RUST_LOG goes over `log.level`. What is returned changes
/// the level.
///
/// # Errors
/// The level is none, or there is a log already.
pub fn start(log: &Log) -> Result<SetLevel, String> {
    let (source, level) = match env::var(EnvFilter::DEFAULT_ENV) {
        Ok(level) if !level.is_empty() => (EnvFilter::DEFAULT_ENV, level),
        _ => ("log.level", log.level.clone()),
    };
    let filter = EnvFilter::builder().parse(&level).map_err(|error| format!("{source}: {error}"))?;
    let (filter, handle) = reload::Layer::new(filter);
    let registry = registry().with(filter);
    let started = match log.format {
        LogFormat::Text => {
            let lines = layer().fmt_fields(PlainFields).with_writer(stderr).with_ansi(stderr().is_terminal());
            registry.with(lines).try_init()
        }
        LogFormat::Json => registry.with(layer().with_writer(json_lines).json().flatten_event(true)).try_init(),
    };
    started.map_err(|error| format!("the log cannot be started: {error}"))?;
    Ok(SetLevel(Box::new(move |level| {
        config::check_log_level(level)?;
        let filter = EnvFilter::builder().parse(level).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    })))
}

/// The usual text of fields, in which nothing is left that does something else than to be seen.
#[derive(Debug)]
struct PlainFields;

impl<'w> FormatFields<'w> for PlainFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut plain = Plain(writer);
        DefaultFields::new().format_fields(Writer::new(&mut plain), fields)
    }
}

fn json_lines() -> JsonLines<Stderr> {
    JsonLines(stderr())
}

/// Takes whole lines of JSON, whose strings have the controls of ASCII written out already; here the others are, as JSON
/// has it.
struct JsonLines<W>(W);

impl<W: Write> Write for JsonLines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(plain_json(line).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn plain_json(line: &[u8]) -> String {
    let mut plain = String::with_capacity(line.len());
    for character in String::from_utf8_lossy(line).chars() {
        if character > '\x7e' && is_control(character) {
            // All of them are below U+10000.
            plain.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;

    use super::*;

    const HOSTILE: &str = "a\n2026-01-01T00:00:00.000000Z ERROR x: y\x1b[31m\u{9b}31m\u{7f}\u{202e}\u{2028}";

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log_something() {
        let error = io::Error::other(HOSTILE);
        tracing::info!(user = HOSTILE, shown = %HOSTILE, told = ?HOSTILE, %error, "a message of {HOSTILE}");
    }

    fn is_plain(line: &str) -> bool {
        !line.contains(is_control)
    }

    #[test]
    fn text_has_one_plain_line_for_each_event() {
        let kept = Kept::default();
        let to = kept.clone();
        let lines = layer().fmt_fields(PlainFields).with_writer(move || to.clone()).with_ansi(false);
        with_default(registry().with(lines), log_something);
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let line = text.strip_suffix('\n').unwrap();
        assert!(is_plain(line), "{line:?}");
        assert!(line.contains(r"shown=a\u{a}2026"), "{line}");
    }

    #[test]
    fn json_has_one_plain_line_for_each_event_and_loses_nothing() {
        let kept = Kept::default();
        let to = kept.clone();
        let lines = layer().with_writer(move || JsonLines(to.clone())).json().flatten_event(true);
        with_default(registry().with(lines), log_something);
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let line = text.strip_suffix('\n').unwrap();
        assert!(is_plain(line), "{line:?}");
        let read: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((read["user"].as_str(), read["shown"].as_str()), (Some(HOSTILE), Some(HOSTILE)));
    }
}
