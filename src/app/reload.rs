//! The configuration, read again: all of it is right, or nothing changes.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use super::{catalog, fleet::Fleet, live, watch};
use crate::{
    admin::{Desk, Setting},
    config::{self, Change, Effect, Loaded, Mistakes, Settings},
};

/// Reads the configuration from where it came from.
pub type ReadAgain = Box<dyn Fn() -> Result<Loaded, Mistakes>>;

pub struct Reloader {
    /// Those in force.
    pub settings: Settings,
    pub read_again: ReadAgain,
    pub fleet: Arc<Fleet>,
    pub desk: Arc<Desk>,
}

impl Reloader {
    /// Takes over what can be, and says what has changed, and what needs a restart.
    ///
    /// # Errors
    /// All mistakes; nothing has changed then.
    pub fn reload(&mut self, why: &str) -> Result<Vec<String>, String> {
        let loaded = (self.read_again)().map_err(|mistakes| {
            let mistakes = mistakes.to_string();
            tracing::error!(why, mistakes, "the configuration is wrong, and nothing was changed");
            self.desk.events.add("reload", "refused", why, mistakes.as_str());
            self.desk.reloads[1].fetch_add(1, Ordering::Relaxed);
            mistakes
        })?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let (changes, settings) = config::changes(&self.settings, loaded.settings);
        self.take(&changes, settings);
        let mut notes: Vec<String> = changes.iter().map(Change::to_string).collect();
        if notes.is_empty() {
            notes.push("nothing has changed".to_owned());
        }
        for note in &notes {
            tracing::info!(why, change = note, "reloaded the configuration");
            self.desk.events.add("reload", note.as_str(), why, "");
        }
        self.desk.reloads[0].fetch_add(1, Ordering::Relaxed);
        Ok(notes)
    }

    /// What [`Reloader::reload`] would change, from what to what. Secrets are left out.
    ///
    /// # Errors
    /// All mistakes.
    pub fn preview(&self) -> Result<Vec<String>, String> {
        let loaded = (self.read_again)().map_err(|mistakes| mistakes.to_string())?;
        let (was, is) = (config::listing(&self.settings), config::listing(&loaded.settings));
        let (changes, _) = config::changes(&self.settings, loaded.settings);
        let mut notes: Vec<String> = loaded.warnings.iter().map(|warning| format!("{warning} (warning)")).collect();
        for change in &changes {
            notes.push(change.to_string());
            notes.extend(differences(&change.key, &was, &is));
        }
        if changes.is_empty() {
            notes.push("nothing would change".to_owned());
        }
        Ok(notes)
    }

    fn take(&mut self, changes: &[Change], settings: Settings) {
        if changes.iter().any(|change| change.key == "log.level")
            && let Err(error) = self.desk.set_log_level(&settings.log.level)
        {
            tracing::error!(error, "the level of the log could not be changed");
        }
        // What was looked up is forgotten also when nothing has changed here.
        let looks_up = settings.auth.lookup.user.is_some();
        if looks_up || changes.iter().any(|change| change.effect != Effect::Restart) {
            self.fleet.configure(&settings.clusters);
            let (frontend, clusters) = (&self.desk.frontend, self.fleet.clusters());
            let directory = frontend.live().directory.renewed(settings.auth.clone());
            frontend.renew(live(&settings, directory, &clusters));
            self.desk.set_clusters(clusters);
            self.desk.catalog.store(Arc::new(catalog(&settings)));
        }
        watch(&settings.log, &self.desk.frontend);
        self.desk.frontend.set_settings(settings.frontend.clone());
        self.settings = settings;
    }
}

/// The settings under a key that differ, one in a line.
fn differences(key: &str, was: &[Setting], is: &[Setting]) -> Vec<String> {
    let belongs =
        |setting: &&Setting| setting.key.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let value = |of: &[Setting], key: &str| of.iter().find(|setting| setting.key == key).map(|it| it.value.clone());
    let keys: BTreeSet<&str> = was.iter().chain(is).filter(belongs).map(|setting| &*setting.key).collect();
    let shown = |value: Option<String>| value.map_or_else(|| "nothing".to_owned(), |value| format!("\"{value}\""));
    let line = |key: &str| {
        let (before, after) = (value(was, key), value(is, key));
        (before != after).then(|| format!("  {key}: {} → {}", shown(before), shown(after)))
    };
    keys.into_iter().filter_map(line).collect()
}
