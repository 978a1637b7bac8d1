//! What a value may be, as the declarations of `keys` say it: each kind reads a value of the file, within its bounds, and
//! writes one as SHOW CONFIG and as the file have it.

use std::time::Duration;

use super::{
    declare::Section,
    mistake::Findings,
    raw::Item,
    value::{Choice, patterns, spelled},
};
use poolhouse_core::sql::Pattern;

/// A kind of value that is kept as a `V`.
pub(super) trait Kind<V> {
    /// `None` when it is wrong, which has been reported then, or is read by hand.
    fn read(&self, item: &Item<'_>, findings: &mut Findings) -> Option<V>;

    /// For people.
    fn show(&self, value: &V) -> String;

    /// As the file has it.
    fn write(&self, value: &V) -> String {
        format!("{:?}", self.show(value))
    }
}

/// What a value is, for whoever has to write one.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    Flag,
    /// From and to.
    Whole(usize, usize),
    /// Greater than 0, or also 0, and at most this.
    Number {
        or_zero: bool,
        most: f64,
    },
    Duration(Duration, Duration),
    /// "0s" for none.
    Limit,
    /// A limit of time, of bytes, or both.
    Lag,
    OneOf(Vec<&'static str>),
    Text,
    /// Text that is not shown.
    Secret,
    List(&'static Shape),
    AnyOf(&'static [Shape]),
    Section(fn() -> Section),
    /// A section that changes as one: when, is said of it and not of its keys.
    AsOne(fn() -> Section),
    /// Sections by names that the user chooses.
    Named(&'static Shape),
    /// Nothing can be written yet.
    NotYet,
}

impl Shape {
    /// The least and the most that it may be, as the file has them.
    pub fn bounds(&self) -> Option<[String; 2]> {
        match self {
            Shape::Whole(least, most) => Some([grouped(*least), grouped(*most)]),
            Shape::Number { or_zero, most } => {
                Some([if *or_zero { "0" } else { "greater than 0" }.into(), most.to_string()])
            }
            Shape::Duration(least, most) => Some([least, most].map(|it| format!("\"{}\"", spelled(*it)))),
            _ => None,
        }
    }

    pub fn shape(&self) -> Shape {
        self.clone()
    }

    pub fn is_section(&self) -> bool {
        matches!(self, Shape::Section(_) | Shape::AsOne(_))
    }
}

/// What is read by hand, since it takes more than its own value to judge it.
impl Kind<()> for Shape {
    fn read(&self, _: &Item<'_>, _: &mut Findings) -> Option<()> {
        None
    }

    fn show(&self, (): &()) -> String {
        String::new()
    }
}

/// What is read by hand and has a place all the same: how it is shown, and how it is written.
pub(super) struct ByHand<V>(pub Shape, pub fn(&V) -> String, pub fn(&V) -> String);

impl<V> ByHand<V> {
    pub fn shape(&self) -> Shape {
        self.0.clone()
    }
}

impl<V> Kind<V> for ByHand<V> {
    fn read(&self, _: &Item<'_>, _: &mut Findings) -> Option<V> {
        None
    }

    fn show(&self, value: &V) -> String {
        self.1(value)
    }

    fn write(&self, value: &V) -> String {
        self.2(value)
    }
}

/// A key of what is still to come; with what to do instead.
pub(super) struct NotYet(pub &'static str);

impl NotYet {
    pub fn shape(&self) -> Shape {
        Shape::NotYet
    }
}

impl Kind<()> for NotYet {
    fn read(&self, item: &Item<'_>, findings: &mut Findings) -> Option<()> {
        item.not_yet(self.0, findings);
        None
    }

    fn show(&self, (): &()) -> String {
        String::new()
    }
}

/// A whole number, from and to.
pub(super) struct Whole(pub usize, pub usize);

impl Whole {
    pub fn shape(&self) -> Shape {
        Shape::Whole(self.0, self.1)
    }
}

impl Kind<usize> for Whole {
    fn read(&self, item: &Item<'_>, findings: &mut Findings) -> Option<usize> {
        item.whole(self.0..=self.1, findings)
    }

    fn show(&self, value: &usize) -> String {
        value.to_string()
    }

    fn write(&self, value: &usize) -> String {
        grouped(*value)
    }
}

impl Kind<u32> for Whole {
    fn read(&self, item: &Item<'_>, findings: &mut Findings) -> Option<u32> {
        item.whole(self.0..=self.1, findings).and_then(|number| number.try_into().ok())
    }

    fn show(&self, value: &u32) -> String {
        value.to_string()
    }

    fn write(&self, value: &u32) -> String {
        grouped(*value as usize)
    }
}

/// In groups of three digits, when they are many.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    if number < 10_000 {
        return digits;
    }
    let group = |(at, digit): (usize, char)| {
        let begins = at > 0 && (digits.len() - at).is_multiple_of(3);
        begins.then_some('_').into_iter().chain([digit])
    };
    digits.chars().enumerate().flat_map(group).collect()
}

/// A duration, from and to.
pub(super) struct Time(pub Duration, pub Duration);

impl Time {
    pub fn shape(&self) -> Shape {
        Shape::Duration(self.0, self.1)
    }
}

impl Kind<Duration> for Time {
    fn read(&self, item: &Item<'_>, findings: &mut Findings) -> Option<Duration> {
        item.duration(self.0..=self.1, findings)
    }

    fn show(&self, value: &Duration) -> String {
        spelled(*value)
    }
}

/// A limit of time: "0s" is none. One that is shorter than this is taken for this.
pub(super) struct Limit(pub Duration);

/// A limit of any length.
pub(super) const LIMIT: Limit = Limit(Duration::ZERO);

impl Limit {
    pub fn shape(&self) -> Shape {
        Shape::Limit
    }
}

impl Kind<Option<Duration>> for Limit {
    fn read(&self, item: &Item<'_>, findings: &mut Findings) -> Option<Option<Duration>> {
        item.time_limit(findings).map(|limit| limit.map(|limit| limit.max(self.0)))
    }

    fn show(&self, value: &Option<Duration>) -> String {
        spelled(value.unwrap_or_default())
    }
}

pub(super) struct Flag;

impl Flag {
    pub fn shape(&self) -> Shape {
        Shape::Flag
    }
}

impl Kind<bool> for Flag {
    fn read(&self, item: &Item<'_>, findings: &mut Findings) -> Option<bool> {
        item.flag(findings)
    }

    fn show(&self, value: &bool) -> String {
        value.to_string()
    }

    fn write(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// One value out of a closed set, and what to write instead of one that is not available yet.
pub(super) struct OneOf<T: 'static>(pub &'static [Choice<'static, T>], pub &'static str);

impl<T> OneOf<T> {
    /// Those that are available.
    pub fn shape(&self) -> Shape {
        Shape::OneOf(self.0.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name).collect())
    }
}

impl<T: Copy + PartialEq> Kind<T> for OneOf<T> {
    fn read(&self, item: &Item<'_>, findings: &mut Findings) -> Option<T> {
        item.choice(self.0, self.1, findings)
    }

    fn show(&self, value: &T) -> String {
        let named = self.0.iter().find(|(_, known)| known.as_ref() == Some(value));
        named.map_or(String::new(), |(name, _)| (*name).to_owned())
    }
}

/// How far behind a replica may be, in time and in bytes.
pub(super) struct Lag;

/// As [`Lag`] keeps it.
pub(super) type LagLimits = (Option<Duration>, Option<u64>);

impl Lag {
    pub fn shape(&self) -> Shape {
        Shape::Lag
    }
}

impl Kind<LagLimits> for Lag {
    fn read(&self, item: &Item<'_>, findings: &mut Findings) -> Option<LagLimits> {
        item.lag_limits(findings)
    }

    fn show(&self, (time, bytes): &LagLimits) -> String {
        let bytes = bytes.map(|bytes| format!("{bytes}B"));
        let limits = time.map(spelled).into_iter().chain(bytes).collect::<Vec<_>>();
        if limits.is_empty() { "0s".to_owned() } else { limits.join(",") }
    }
}

/// Names or regular expressions, of functions or of tables.
pub(super) struct Patterns {
    pub functions: bool,
}

impl Patterns {
    pub fn shape(&self) -> Shape {
        Shape::List(&Shape::Text)
    }
}

impl Kind<Vec<Pattern>> for Patterns {
    fn read(&self, item: &Item<'_>, findings: &mut Findings) -> Option<Vec<Pattern>> {
        Some(patterns(item, self.functions, findings))
    }

    fn show(&self, value: &Vec<Pattern>) -> String {
        joined(value)
    }

    fn write(&self, value: &Vec<Pattern>) -> String {
        list(value)
    }
}

/// For people.
pub(super) fn joined(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// As the file has a list of texts.
pub(super) fn list(items: &[impl ToString]) -> String {
    format!("{:?}", items.iter().map(ToString::to_string).collect::<Vec<_>>())
}

/// What is shown of a secret.
pub(super) fn hidden<T>(secret: &Option<T>) -> String {
    if secret.is_some() { "(hidden)".to_owned() } else { String::new() }
}
