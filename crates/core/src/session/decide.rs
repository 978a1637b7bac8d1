//! Where a statement may go, as far as the session can tell, and why: the class of nodes. Which of them it is, `topology`
//! says.

use std::fmt;

use super::{Mode, Need, Pipeline, PoolhouseSettings, Route, RouteBy, Session};
use crate::sql::{Access, Hint, KnownText};

/// What decided where a statement goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// What it does.
    Verdict,
    /// `poolhouse.route`, and who has set it.
    Route(Route, RouteBy),
    /// A comment in the text.
    Hint,
    /// There is only one node, or in session mode only the server connection that the session has.
    NoChoice,
    /// The transaction that is open, and where that began.
    Transaction,
    /// The server connection that the session keeps.
    Pinned,
    /// Its transactions are SERIALIZABLE.
    Serializable,
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Verdict => formatter.write_str("verdict"),
            Rule::Route(route, RouteBy::Session) => write!(formatter, "poolhouse.route is {}", route.name()),
            Rule::Route(route, RouteBy::Rule) => write!(formatter, "a rule of the configuration says {}", route.name()),
            Rule::Route(route, RouteBy::Listener) => write!(formatter, "the listener's route is {}", route.name()),
            Rule::Hint => formatter.write_str("a comment in the statement says so"),
            Rule::NoChoice => formatter.write_str("no choice"),
            Rule::Transaction => formatter.write_str("the transaction runs there"),
            Rule::Pinned => formatter.write_str("the session keeps its server connection"),
            Rule::Serializable => formatter.write_str("a replica cannot be serializable"),
        }
    }
}

impl Session {
    /// What a text needs, and the rule that says so; `None` is one that was not judged.
    pub(super) fn decide(&self, verdict: Option<&KnownText>, pipeline: &Pipeline) -> (Need, Rule) {
        if self.in_waiting_block() {
            let primary = verdict.is_some_and(|verdict| verdict.hint.as_deref() == Some(&Hint::Primary));
            let reads = !primary && verdict.is_some_and(|verdict| self.reads(verdict, pipeline));
            return (self.need_of_block(reads).unwrap_or_default(), Rule::Transaction);
        }
        if verdict.is_some_and(|verdict| self.stays_in_block(verdict, pipeline)) {
            return (Need::Read, Rule::Transaction);
        }
        if let Some(hint) = verdict.and_then(|verdict| verdict.hint.as_deref())
            && let Ok(need) = self.need_by_hint(hint)
        {
            return (need, Rule::Hint);
        }
        if let Some(own) = &self.own
            && self.shared.mode != Mode::Session
        {
            let PoolhouseSettings { route, by, .. } = own.now();
            match route {
                Route::Auto => {}
                Route::Primary => return (Need::Write, Rule::Route(route, by)),
                Route::Replica => return (Need::Replica, Rule::Route(route, by)),
            }
        }
        if !self.shared.is_routed() {
            return (Need::Write, Rule::NoChoice);
        }
        let reads = verdict.is_some_and(|verdict| self.reads(verdict, pipeline));
        if reads && self.is_serializable() {
            return (Need::Write, Rule::Serializable);
        }
        (if reads { Need::Read } else { Need::Write }, Rule::Verdict)
    }

    /// What a hint asks for.
    ///
    /// # Errors
    /// It cannot be followed; with words for the client when that is worth a warning.
    fn need_by_hint(&self, hint: &Hint) -> Result<Need, Option<String>> {
        if !self.shared.is_routed() {
            return Err(None);
        }
        let fixed = self.own.as_ref().and_then(|own| own.fixed_route());
        let ignored = || Err(Some("the listener's route is fixed, so the hint in the statement is ignored".into()));
        match (hint, fixed) {
            (Hint::Replica, Some(Route::Primary)) | (Hint::Primary, Some(Route::Replica)) => return ignored(),
            (Hint::Node(_), Some(Route::Primary | Route::Replica)) => return ignored(),
            _ => {}
        }
        match hint {
            Hint::Replica => Ok(Need::Replica),
            Hint::Primary => Ok(Need::Write),
            Hint::Node(name) => match self.shared.nodes.find(name) {
                Some(node) => Ok(Need::Node(node)),
                None => Err(Some(format!("there is no node \"{name}\", so the hint in the statement is ignored"))),
            },
            Hint::Unknown(text) => Err(Some(format!("the hint \"{text}\" in the statement is unknown and ignored"))),
        }
    }

    /// A statement with a hint is sent: one that is not followed is worth a warning.
    pub(super) fn note_hint(&mut self, hint: &Hint) {
        if let Err(Some(warning)) = self.need_by_hint(hint) {
            self.own.get_or_insert_default().warn(warning);
        }
    }

    /// What a text needs; `None` is one that was not judged.
    pub(super) fn need(&self, verdict: Option<&KnownText>, pipeline: &Pipeline) -> Need {
        self.decide(verdict, pipeline).0
    }

    /// Why a verdict says that a text reads, or that it does not, in words.
    pub(super) fn verdict_words(&self, verdict: Option<&KnownText>, pipeline: &Pipeline) -> String {
        let Some(verdict) = verdict else { return "too long to be looked into".into() };
        if let Some(words) = self.kept_on_primary(verdict) {
            return words;
        }
        let reads = self.reads(verdict, pipeline);
        match verdict.access() {
            Access::Read if !reads => "a replica has refused to run it".into(),
            Access::Write if reads => format!("only reads: {}, and only reads", verdict.reason),
            _ => verdict.reason.to_string(),
        }
    }
}
