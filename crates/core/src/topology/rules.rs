//! What the configuration says of whole sessions: where theirs go, by who they are.

use super::Routing;
use crate::sql::Pattern;

/// Where the statements of a session go, as long as it does not say so itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preference {
    /// Each where it can be served.
    Auto,
    /// All to the primary.
    Primary,
    /// All to replicas.
    Replica,
}

/// One rule. It is for the sessions that match all that it names.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RoutingRule {
    /// The user that it logged in as.
    pub user: Option<Pattern>,
    /// By the name that clients ask for.
    pub database: Option<Pattern>,
    /// As it was when the session began; empty when it had none.
    pub application_name: Option<Pattern>,
    /// Where its statements go.
    pub route: Option<Preference>,
    /// Of each node, in place of its own; a node of weight 0 serves none of these sessions' reads.
    pub weights: Option<Box<[f64]>>,
}

/// Who a session is.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// The user that it logged in as.
    pub user: &'a str,
    /// The name of the database that it asked for.
    pub database: &'a str,
    /// As it was when the session began; empty when it had none.
    pub application_name: &'a str,
}

impl RoutingRule {
    fn is_for(&self, who: Who<'_>) -> bool {
        let fits = |pattern: &Option<Pattern>, name| pattern.as_ref().is_none_or(|pattern| pattern.is(name));
        fits(&self.user, who.user)
            && fits(&self.database, who.database)
            && fits(&self.application_name, who.application_name)
    }
}

impl Routing {
    /// The place of the first rule that is for a session.
    pub fn rule_for(&self, who: Who<'_>) -> Option<u16> {
        self.rules.iter().position(|rule| rule.is_for(who)).map(|place| place as u16)
    }

    /// The rule at a place.
    pub fn rule(&self, place: Option<u16>) -> Option<&RoutingRule> {
        self.rules.get(usize::from(place?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_counts() {
        let pattern = |text: &str| Some(Pattern::parse(text).unwrap());
        let rules = [
            RoutingRule { user: pattern("report"), database: pattern("/^app/"), ..RoutingRule::default() },
            RoutingRule { application_name: pattern("/cron$/"), ..RoutingRule::default() },
            RoutingRule { user: pattern("/^re/"), ..RoutingRule::default() },
        ];
        let routing = Routing { rules: rules.into(), ..Routing::default() };
        let rule = |user, database, application_name| routing.rule_for(Who { user, database, application_name });
        assert_eq!(rule("report", "app_2", "cron"), Some(0));
        assert_eq!(rule("report", "old_app", "my cron"), Some(1));
        assert_eq!(rule("reports", "app", "psql"), Some(2));
        assert_eq!(rule("alice", "app", ""), None);
        assert_eq!(routing.rule(Some(2)), Some(&routing.rules[2]));
        assert_eq!((routing.rule(None), routing.rule(Some(3))), (None, None));
    }
}
