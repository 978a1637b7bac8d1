//! `[pool]`, `[databases.X.pool]` and `[users.X.pool]`: one set of keys, each level over the one before.

use super::{
    Pooling,
    declare::Value,
    keys,
    mistake::{Findings, Place},
    raw::Item,
};

/// What one section of pool keys says, as `[users.X.pool]` does: what it does not say is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolOverride {
    said: Vec<&'static str>,
    values: Pooling,
}

impl PoolOverride {
    /// Puts what is said here over `pooling`.
    pub fn apply(&self, pooling: &mut Pooling) {
        self.said().for_each(|(_, value)| (value.keep)(&self.values, pooling));
    }

    /// The keys that are said, with their values as they are shown.
    pub(super) fn shown(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.said().map(|(name, value)| (name, (value.show)(&self.values)))
    }

    pub fn size(&self) -> Option<usize> {
        self.said.contains(&"size").then_some(self.values.lending.size)
    }

    /// As the file has it.
    pub fn mode(&self) -> Option<String> {
        self.shown().find(|(name, _)| *name == "mode").map(|(_, mode)| mode)
    }

    fn said(&self) -> impl Iterator<Item = (&'static str, &'static Value<Pooling>)> {
        let fields = keys::Pool::FIELDS.iter().filter(|field| self.said.contains(&field.key.name));
        fields.filter_map(|field| Some((field.key.name, field.value.as_ref()?)))
    }
}

/// One section of pool keys, read, with the places of what must fit together.
#[derive(Debug, Default)]
pub(super) struct Section {
    pub overrides: PoolOverride,
    pub size: Option<Place>,
    pub min_idle: Option<Place>,
}

impl Section {
    pub fn read(item: Option<&Item<'_>>, findings: &mut Findings) -> Section {
        let raw = keys::Pool::read(item, findings);
        let mut values = Pooling::default();
        let said = raw.put(&mut values, findings);
        Section {
            overrides: PoolOverride { said, values },
            size: raw.size.map(|item| item.place),
            min_idle: raw.min_idle.map(|item| item.place),
        }
    }

    /// The settings of this section over those of the section above it.
    pub fn over(&self, base: &Pooling, findings: &mut Findings) -> Pooling {
        let mut pooling = base.clone();
        self.overrides.apply(&mut pooling);
        self.check_idle(&pooling, "", findings);
        pooling
    }

    /// Says when this section asks to keep more connections than there can be. `whose` is added to the message.
    pub fn check_idle(&self, pooling: &Pooling, whose: &str, findings: &mut Findings) {
        let (size, min_idle) = (pooling.lending.size, pooling.lending.min_idle);
        let Some(place) = self.min_idle.as_ref().or(self.size.as_ref()) else { return };
        if min_idle > size {
            let what = format!("min_idle {min_idle} is more than size {size}{whose}");
            findings.mistake(place, what, "lower min_idle or raise size");
        }
    }
}
