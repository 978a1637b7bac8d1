//! Prometheus' text format.

use std::fmt::Write;

use crate::{
    metrics::{Distribution, Metric, SHOWN_BOUNDS},
    text::plain,
};

/// The page while it is written.
#[derive(Default)]
pub struct Page(pub String);

impl Page {
    pub fn head(&mut self, metric: &Metric) {
        let Metric { name, kind, help, .. } = metric;
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {}\n", kind.name());
    }

    pub fn sample(&mut self, metric: &Metric, values: &[&str], value: f64) {
        self.line(metric, "", values, None, value);
    }

    fn line(&mut self, metric: &Metric, suffix: &str, values: &[&str], bound: Option<&str>, value: f64) {
        let _ = write!(self.0, "{}{suffix}", metric.name);
        let bound = bound.map(|bound| ("le", bound));
        let labels = metric.labels.iter().copied().zip(values.iter().copied()).chain(bound);
        for (at, (label, value)) in labels.enumerate() {
            let _ = write!(self.0, "{}{label}=\"{}\"", if at == 0 { '{' } else { ',' }, escaped(value));
        }
        let close = if values.is_empty() && bound.is_none() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
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
