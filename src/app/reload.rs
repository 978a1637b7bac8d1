//! The configuration, read again: all of it is right, or nothing changes.

use std::sync::Arc;

use super::{catalog, live, watch};
use crate::{
    admin::Desk,
    config::{self, Change, Effect, Loaded, Mistakes, Settings},
    frontend::Cluster,
};

/// Reads the configuration from where it came from.
pub type ReadAgain = Box<dyn Fn() -> Result<Loaded, Mistakes>>;

pub struct Reloader {
    /// Those in force.
    pub settings: Settings,
    pub read_again: ReadAgain,
    pub clusters: Vec<Arc<Cluster>>,
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
        Ok(notes)
    }

    fn take(&mut self, changes: &[Change], settings: Settings) {
        if changes.iter().any(|change| change.key == "log.level")
            && let Err(error) = self.desk.set_log_level(&settings.log.level)
        {
            tracing::error!(error, "the level of the log could not be changed");
        }
        if changes.iter().any(|change| change.effect != Effect::Restart) {
            let frontend = &self.desk.frontend;
            let directory = frontend.live().directory.renewed(settings.auth.clone());
            frontend.renew(live(&settings, directory, &self.clusters));
            self.desk.catalog.store(Arc::new(catalog(&settings)));
        }
        watch(&settings.log, &self.desk.frontend);
        self.settings = settings;
    }
}
