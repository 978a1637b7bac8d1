//! `[pool]`, `[databases.X.pool]` and `[users.X.pool]`: one set of keys, each level over the one before.

use super::{
    PoolOverride, Pooling,
    mistake::{Findings, Place},
    raw::{self, Item},
    value::Choice,
};
use poolhouse_core::session::{Mode, OnPin};

const SIZE_MAX: usize = 100_000;
const PREPARED_STATEMENTS_MAX: usize = 100_000;

const MODES: &[Choice<'static, Mode>] =
    &[("session", Some(Mode::Session)), ("transaction", Some(Mode::Transaction)), ("statement", Some(Mode::Statement))];

const ON_PIN: &[Choice<'static, OnPin>] =
    &[("allow", Some(OnPin::Allow)), ("warn", Some(OnPin::Warn)), ("refuse", Some(OnPin::Refuse))];

/// One section of pool keys, read, with the places of what must fit together.
#[derive(Debug, Default)]
pub(super) struct Section {
    pub overrides: PoolOverride,
    pub size: Option<Place>,
    pub min_idle: Option<Place>,
}

impl Section {
    pub fn read(item: Option<&Item<'_>>, findings: &mut Findings) -> Section {
        let raw = raw::Pool::read(item, findings);
        let mut limit = |item: &Option<Item<'_>>| item.as_ref().and_then(|item| item.time_limit(findings));
        let overrides = PoolOverride {
            checkout_timeout: limit(&raw.checkout_timeout),
            wait_notice: limit(&raw.wait_notice),
            idle_timeout: limit(&raw.idle_timeout),
            check_delay: limit(&raw.check_delay),
            max_lifetime: limit(&raw.max_lifetime),
            query_timeout: limit(&raw.query_timeout),
            idle_transaction_timeout: limit(&raw.idle_transaction_timeout),
            client_idle_timeout: limit(&raw.client_idle_timeout),
            pin_timeout: limit(&raw.pin_timeout),
            ..PoolOverride::default()
        };
        let mut whole =
            |item: &Option<Item<'_>>, least, most| item.as_ref().and_then(|item| item.whole(least..=most, findings));
        let overrides = PoolOverride {
            size: whole(&raw.size, 1, SIZE_MAX),
            min_idle: whole(&raw.min_idle, 0, SIZE_MAX),
            prepared_statements: whole(&raw.prepared_statements, 0, PREPARED_STATEMENTS_MAX),
            ..overrides
        };
        let mode = raw.mode.as_ref().and_then(|item| item.choice(MODES, "", findings));
        let on_pin = raw.on_pin.as_ref().and_then(|item| item.choice(ON_PIN, "", findings));
        Section {
            overrides: PoolOverride { mode, on_pin, ..overrides },
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
