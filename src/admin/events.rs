//! What has happened lately: the last changes of nodes, and commands of operators.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use super::{Value, desk::timestamp};

/// Older ones are forgotten.
const EVENTS_MAX: usize = 1_000;

#[derive(Debug, Clone)]
pub struct Event {
    pub time: SystemTime,
    /// `node`, `primary` or `command`.
    pub kind: &'static str,
    pub what: String,
    pub who: String,
    pub why: String,
}

#[derive(Debug, Default)]
pub struct Events {
    events: Mutex<VecDeque<Event>>,
}

impl Events {
    pub fn add(&self, kind: &'static str, what: impl Into<String>, who: impl Into<String>, why: impl Into<String>) {
        let event = Event { time: SystemTime::now(), kind, what: what.into(), who: who.into(), why: why.into() };
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() == EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// The newest comes last.
    pub fn rows(&self) -> Vec<Vec<Value>> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let row = |event: &Event| {
            let Event { time, kind, what, who, why } = event.clone();
            crate::admin::table::row![timestamp(time), kind, what, who, why]
        };
        events.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten() {
        let events = Events::default();
        for number in 0..=EVENTS_MAX {
            events.add("command", number.to_string(), "admin", "");
        }
        let rows = events.rows();
        assert_eq!((rows.len(), &rows[0][2]), (EVENTS_MAX, &Value::from("1")));
    }
}
