//! The two text formats: Prometheus' own, and OpenMetrics.

use std::fmt::Write;

use crate::{
    metrics::{Distribution, Metric, SHOWN_BOUNDS},
    text::plain,
};

/// In which of them a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// What a client that sends this header (RFC 9110, "Accept") can read: OpenMetrics when it says so, else Prometheus'.
    pub fn accepted(header: &str) -> Format {
        let is_meant = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"))
                && parts.all(|part| match part.split_once('=') {
                    Some((name, weight)) if name.eq_ignore_ascii_case("q") => {
                        weight.parse().is_ok_and(|q: f32| q > 0.0)
                    }
                    Some((name, version)) if name.eq_ignore_ascii_case("version") => version.starts_with("1."),
                    _ => true,
                })
        };
        if header.split(',').any(is_meant) { Format::OpenMetrics } else { Format::Prometheus }
    }

    /// The Content-Type of such a page.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The page while it is written.
pub struct Page {
    format: Format,
    text: String,
}

impl Page {
    pub fn new(format: Format) -> Page {
        Page { format, text: String::new() }
    }

    /// The whole text.
    pub fn end(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    pub fn head(&mut self, metric: &Metric) {
        let Metric { kind, help, .. } = metric;
        // OpenMetrics, "MetricFamily": a counter's samples end with `_total`, its family does not.
        let name = match self.format {
            Format::Prometheus => metric.name,
            Format::OpenMetrics => metric.family(),
        };
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {}\n", kind.name());
    }

    pub fn sample(&mut self, metric: &Metric, values: &[&str], value: f64) {
        self.line(metric, "", values, None, value);
    }

    fn line(&mut self, metric: &Metric, suffix: &str, values: &[&str], bound: Option<&str>, value: f64) {
        let _ = write!(self.text, "{}{suffix}", metric.name);
        let bound = bound.map(|bound| ("le", bound));
        let labels = metric.labels.iter().copied().zip(values.iter().copied()).chain(bound);
        for (at, (label, value)) in labels.enumerate() {
            let _ = write!(self.text, "{}{label}=\"{}\"", if at == 0 { '{' } else { ',' }, escaped(value));
        }
        let close = if values.is_empty() && bound.is_none() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }

    pub fn histogram(&mut self, metric: &Metric, values: &[&str], held: &Distribution) {
        for micros in SHOWN_BOUNDS {
            let bound = (micros as f64 / 1e6).to_string();
            self.line(metric, "_bucket", values, Some(&bound), held.up_to(micros) as f64);
        }
        self.line(metric, "_bucket", values, Some("+Inf"), held.count() as f64);
        self.line(metric, "_sum", values, None, held.sum().as_secs_f64());
        self.line(metric, "_count", values, None, held.count() as f64);
    }
}

/// A label's value as the format wants it ("Text-based format": backslash, quote and line feed are escaped), which says what
/// the console says.
fn escaped(value: &str) -> String {
    plain(value).replace('\\', "\\\\").replace('"', "\\\"")
}
