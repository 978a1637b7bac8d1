//! Errors by the classes of their SQLSTATEs, so that a metric has few labels whatever a server sends.

use std::sync::atomic::{AtomicU64, Ordering};

/// The classes of PostgreSQL's manual, "PostgreSQL Error Codes", sorted.
const CLASSES: [&str; 43] = [
    "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22", "23", "24", "25",
    "26", "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "44", "53", "54", "55", "57",
    "58", "F0", "HV", "P0", "XX",
];

/// What functions of a database name themselves.
const OTHER: &str = "other";

const PLACES: usize = CLASSES.len() + 1;

/// A class of SQLSTATEs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqlStateClass(u8);

impl SqlStateClass {
    pub fn of(sqlstate: &str) -> SqlStateClass {
        let class = sqlstate.get(..2).unwrap_or_default();
        let at = CLASSES.binary_search(&class).unwrap_or(CLASSES.len());
        SqlStateClass(at as u8)
    }

    pub fn name(self) -> &'static str {
        CLASSES.get(usize::from(self.0)).copied().unwrap_or(OTHER)
    }
}

/// How many errors of each class there were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors([u64; PLACES]);

impl Default for Errors {
    fn default() -> Self {
        Errors([0; PLACES])
    }
}

impl Errors {
    pub fn add(&mut self, class: SqlStateClass) {
        self.0[usize::from(class.0)] += 1;
    }

    pub fn merge(&mut self, other: &Errors) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }

    /// Those that there were.
    pub fn by_class(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let named = (0..PLACES).map(|at| SqlStateClass(at as u8).name()).zip(self.0);
        named.filter(|(_, count)| *count > 0)
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// The same, for many at once.
#[derive(Debug)]
pub struct ErrorCounters([AtomicU64; PLACES]);

impl Default for ErrorCounters {
    fn default() -> Self {
        ErrorCounters([const { AtomicU64::new(0) }; PLACES])
    }
}

impl ErrorCounters {
    pub fn add(&self, class: SqlStateClass) {
        self.0[usize::from(class.0)].fetch_add(1, Ordering::Relaxed);
    }

    pub fn merge(&self, errors: &Errors) {
        for (counter, count) in self.0.iter().zip(errors.0).filter(|(_, count)| *count > 0) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub fn read(&self) -> Errors {
        Errors(std::array::from_fn(|at| self.0[at].load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_its_place_and_the_rest_share_one() {
        assert!(CLASSES.is_sorted());
        let mut errors = Errors::default();
        for state in ["23505", "23503", "40001", "MY001", "", "é"] {
            errors.add(SqlStateClass::of(state));
        }
        let counters = ErrorCounters::default();
        counters.merge(&errors);
        counters.add(SqlStateClass::of("57014"));
        let read: Vec<_> = counters.read().by_class().collect();
        assert_eq!(read, [("23", 2), ("40", 1), ("57", 1), (OTHER, 3)]);
        assert_eq!(counters.read().total(), 7);
    }
}
