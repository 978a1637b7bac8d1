//! How a key is declared: once, in `keys`. The macro makes of a declaration the key's place in the raw section, its reading,
//! and a [`Field`], by which the other files of this module know it.

use super::{
    changes::Effect,
    kind::{Kind, Shape},
    mistake::Findings,
    raw::Item,
};

/// A section and the keys that it may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section {
    /// Where it stands; `*` is a name that the user chooses.
    pub at: &'static str,
    /// By lines; an empty one ends a paragraph.
    pub about: &'static [&'static str],
    pub keys: &'static [Key],
}

impl Section {
    pub fn names(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.keys.iter().map(|key| key.name)
    }

    pub fn key(&self, name: &str) -> Option<&'static Key> {
        let key = self.keys.iter().find(|key| key.name == name);
        debug_assert!(key.is_some(), "[{}] has no {name}", self.at);
        key
    }

    /// When a change of this key takes effect.
    pub fn effect(&self, name: &str) -> Effect {
        self.key(name).map_or(Effect::Restart, |key| key.effect)
    }
}

/// What is known of a key, whatever its value is kept as.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub name: &'static str,
    /// What it means, by lines. `{bounds}`, `{least}` and `{most}` stand for those of its kind.
    pub about: &'static [&'static str],
    pub shape: fn() -> Shape,
    /// When a change takes effect.
    pub effect: Effect,
    pub usual: Usual,
}

/// What holds without a word on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usual {
    /// What the settings have by default, written where their type is.
    Default,
    /// Nothing, or what other keys say; with an example.
    Nothing(&'static str),
    /// What other keys say; with the usual result.
    Depends(&'static str),
    /// It is to be said; with an example.
    Asked(&'static str),
}

impl Usual {
    /// For people, of what is not in the settings.
    pub fn shown(self) -> String {
        match self {
            Usual::Depends(text) => text.trim_matches('"').to_owned(),
            Usual::Default | Usual::Nothing(_) | Usual::Asked(_) => String::new(),
        }
    }
}

/// A key whose settings are a `T`.
pub(super) struct Field<T: 'static> {
    pub key: Key,
    /// `None` when nothing of it is kept there.
    pub value: Option<Value<T>>,
}

/// How to get at a value. The first argument is where it is.
pub(super) struct Value<T> {
    pub show: fn(&T) -> String,
    /// As the file has it.
    pub write: fn(&T) -> String,
    pub differs: fn(&T, &T) -> bool,
    /// Puts the value of the first into the second.
    pub keep: fn(&T, &mut T),
}

/// Reads a value and puts it where it belongs. Says whether it did.
pub(super) fn put<V>(kind: &impl Kind<V>, item: &Item<'_>, findings: &mut Findings, place: impl FnOnce(V)) -> bool {
    kind.read(item, findings).map(place).is_some()
}

/// Declares a section:
///
/// ```text
/// /// What the section is about.
/// Pool at "pool", of Pooling {
///     /// What the key means, {bounds}.
///     size(lending.size): Whole(1, 100), Now;
/// }
/// ```
///
/// In brackets stands where the value is kept: a path of fields; `by get, set`, two functions; `from get` for what is read by
/// hand; or nothing. After it come what it may be, when a change takes effect, and what holds without a word on it unless
/// that is the default of the settings. A section without `of` is read by hand, and its keys have no brackets.
macro_rules! section {
    // All of its keys are read by hand.
    (
        $(#[doc = $about:literal])*
        $name:ident at $at:literal {
            $($(#[doc = $sentence:literal])* $key:ident: $kind:expr, $effect:ident $(, $usual:expr)?;)*
        }
    ) => {
        section!(@raw $name $at [$($about)*] $($key [$($sentence)*] ($kind, $effect $(, $usual)?),)*);
    };
    (
        $(#[doc = $about:literal])*
        $name:ident at $at:literal, of $target:ty {
            $($(#[doc = $sentence:literal])* $key:ident $place:tt: $kind:expr, $effect:ident $(, $usual:expr)?;)*
        }
    ) => {
        section!(@raw $name $at [$($about)*] $($key [$($sentence)*] ($kind, $effect $(, $usual)?),)*);

        impl $name<'_> {
            #[allow(dead_code, reason = "of some sections only the keys are known")]
            pub const FIELDS: &'static [Field<$target>] = &[$(Field {
                key: section!(@key $key [$($sentence)*] ($kind, $effect $(, $usual)?)),
                value: section!(@value $place $kind),
            },)*];

            /// Puts what is said over `target`, but for what is read by hand. The names of the keys that were right.
            #[allow(dead_code, reason = "some sections are shown by their fields, and read by hand")]
            pub fn put(&self, target: &mut $target, findings: &mut Findings) -> Vec<&'static str> {
                let mut right = Vec::new();
                $(
                    if let Some(item) = &self.$key
                        && section!(@put $place $kind, item, target, findings)
                    {
                        right.push(stringify!($key));
                    }
                )*
                right
            }
        }
    };
    (@raw $name:ident $at:literal [$($about:literal)*] $($key:ident $sentence:tt $kind:tt,)*) => {
        #[derive(Debug, Clone, Default)]
        pub(super) struct $name<'d> {
            $(pub $key: Option<Item<'d>>,)*
        }

        impl<'d> $name<'d> {
            pub const SECTION: Section =
                Section { at: $at, about: &[$($about),*], keys: &[$(section!(@key $key $sentence $kind),)*] };

            /// An absent section is an empty one.
            pub fn read(item: Option<&Item<'d>>, findings: &mut Findings) -> Self {
                let mut section = Self::default();
                let Some(item) = item else { return section };
                for entry in item.entries(findings) {
                    match entry.name {
                        $(stringify!($key) => section.$key = Some(entry.item),)*
                        _ => unknown_key(&entry, &item.place, &Self::SECTION, findings),
                    }
                }
                section
            }
        }
    };
    (@key $key:ident $sentence:tt ($kind:expr, $effect:ident)) => {
        section!(@key $key $sentence ($kind, $effect, Usual::Default))
    };
    (@key $key:ident [$($sentence:literal)*] ($kind:expr, $effect:ident, $usual:expr)) => {
        Key {
            name: stringify!($key),
            about: &[$($sentence),*],
            shape: || ($kind).shape(),
            effect: Effect::$effect,
            usual: $usual,
        }
    };
    (@value () $kind:expr) => { None };
    (@value (by $get:ident, $set:ident) $kind:expr) => {
        Some(Value {
            show: |from| Kind::show(&$kind, &$get(from)),
            write: |from| Kind::write(&$kind, &$get(from)),
            differs: |one, other| $get(one) != $get(other),
            keep: |from, into| $set(into, $get(from)),
        })
    };
    (@value (from $get:ident) $kind:expr) => {
        Some(Value {
            show: |from| Kind::show(&$kind, &$get(from)),
            write: |from| Kind::write(&$kind, &$get(from)),
            differs: |one, other| $get(one) != $get(other),
            keep: |_, _| (),
        })
    };
    (@value ($($place:ident).+) $kind:expr) => {
        Some(Value {
            show: |from| Kind::show(&$kind, &from.$($place).+),
            write: |from| Kind::write(&$kind, &from.$($place).+),
            differs: |one, other| one.$($place).+ != other.$($place).+,
            keep: |from, into| into.$($place).+.clone_from(&from.$($place).+),
        })
    };
    (@put () $kind:expr, $item:ident, $target:ident, $findings:ident) => {
        { let _ = &$target; put(&$kind, $item, $findings, |()| ()) }
    };
    (@put (by $get:ident, $set:ident) $kind:expr, $item:ident, $target:ident, $findings:ident) => {
        put(&$kind, $item, $findings, |value| $set($target, value))
    };
    (@put (from $get:ident) $kind:expr, $item:ident, $target:ident, $findings:ident) => {
        { let _ = ($item, &$target, &$findings); false }
    };
    (@put ($($place:ident).+) $kind:expr, $item:ident, $target:ident, $findings:ident) => {
        put(&$kind, $item, $findings, |value| $target.$($place).+ = value)
    };
}

pub(super) use section;
