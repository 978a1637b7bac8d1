//! What the configuration says of functions and tables, where it knows better than their definitions.

use regex::Regex;

use super::{
    functions::{self, FunctionKind},
    verdict::Verdict,
};

/// A name, or a regular expression for names.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// As PostgreSQL writes it when it need not be quoted; of a table also with its schema before a dot.
    Name(Box<str>),
    /// Found anywhere in the name, unless it is anchored.
    Expression(Regex),
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        match (self, other) {
            (Pattern::Name(one), Pattern::Name(other)) => one == other,
            (Pattern::Expression(one), Pattern::Expression(other)) => one.as_str() == other.as_str(),
            _ => false,
        }
    }
}

impl Eq for Pattern {}

/// As it is written in the configuration.
impl std::fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Pattern::Name(name) => formatter.write_str(name),
            Pattern::Expression(expression) => write!(formatter, "/{}/", expression.as_str()),
        }
    }
}

impl Pattern {
    /// From a name, or an expression between slashes.
    ///
    /// # Errors
    /// What is wrong with the expression.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        let expression = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
        match expression {
            Some(expression) => Regex::new(expression).map(Pattern::Expression).map_err(|error| error.to_string()),
            None => Ok(Pattern::Name(text.into())),
        }
    }

    /// The name of a function of PostgreSQL's own: it is known what that does.
    pub fn is_built_in_function(&self) -> bool {
        matches!(self, Pattern::Name(name) if functions::kind(name) != FunctionKind::Unknown)
    }

    /// Whether a name is meant.
    pub fn is(&self, name: &str) -> bool {
        match self {
            Pattern::Name(own) => **own == *name,
            Pattern::Expression(expression) => expression.is_match(name),
        }
    }

    /// Whether it may mean a table, which a statement may name with or without its schema.
    fn is_table(&self, written: &str) -> bool {
        let bare = |name: &str| name.rsplit_once('.').map_or(0, |(schema, _)| schema.len() + 1);
        match self {
            Pattern::Name(own) if own.contains('.') == written.contains('.') => **own == *written,
            Pattern::Name(own) => own[bare(own)..] == written[bare(written)..],
            Pattern::Expression(expression) => {
                expression.is_match(written) || expression.is_match(&written[bare(written)..])
            }
        }
    }
}

/// What is to be taken for reading or writing, whatever its definition says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Functions that only read.
    pub read_functions: Vec<Pattern>,
    /// Functions that write.
    pub write_functions: Vec<Pattern>,
    /// Tables and views that are read on the primary.
    pub primary_tables: Vec<Pattern>,
}

impl Lists {
    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.read_functions.is_empty() && self.write_functions.is_empty() && self.primary_tables.is_empty()
    }

    /// What a text names that keeps it on the primary, and the list in which that is.
    pub fn keeps<'v>(&self, verdict: &'v Verdict) -> Option<(&'v str, &'static str)> {
        let is_table = |table: &str| self.primary_tables.iter().any(|pattern| pattern.is_table(table));
        if let Some(table) = verdict.tables.iter().find(|table| is_table(table)) {
            return Some((table, "primary_tables"));
        }
        let writes = |name: &str| self.write_functions.iter().any(|pattern| pattern.is(name));
        let function = verdict.unseen.as_deref()?.functions.iter().find(|name| writes(name))?;
        Some((function, "write_functions"))
    }

    /// Whether a function is said to read.
    pub fn reads(&self, name: &str) -> bool {
        self.read_functions.iter().any(|pattern| pattern.is(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::judge;

    #[test]
    fn tables_with_and_without_their_schemas() {
        let is = |pattern: &str, table: &str| Pattern::parse(pattern).unwrap().is_table(table);
        for (pattern, table, expected) in [
            ("orders", "orders", true),
            ("orders", "public.orders", true),
            ("public.orders", "orders", true),
            ("public.orders", "public.orders", true),
            ("public.orders", "app.orders", false),
            ("orders", "old_orders", false),
            ("/^orders/", "app.orders_2", true),
            ("/^app\\./", "app.orders", true),
            ("/^app\\./", "orders", false),
        ] {
            assert_eq!(is(pattern, table), expected, "{pattern} {table}");
        }
        assert!(Pattern::parse("/(/").is_err());
        assert!(Pattern::parse("now").unwrap().is_built_in_function());
        assert!(!Pattern::parse("get_total").unwrap().is_built_in_function());
    }

    #[test]
    fn what_keeps_a_text_on_the_primary() {
        let parse = |texts: &[&str]| texts.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        let lists = Lists {
            read_functions: parse(&["/^get_/"]),
            write_functions: parse(&["get_next"]),
            primary_tables: parse(&["jobs"]),
        };
        let keeps = |sql: &str| lists.keeps(&judge(sql)).map(|(name, list)| (name.to_owned(), list));
        let said = |name: &str, list| Some((name.to_owned(), list));
        for sql in ["SELECT 1", "SELECT get_total()", "SELECT * FROM a JOIN b USING (x)", "SELECT 'jobs'"] {
            assert_eq!(keeps(sql), None, "{sql}");
        }
        assert_eq!(keeps("SELECT * FROM a, public.\"jobs\""), said("public.jobs", "primary_tables"));
        assert_eq!(keeps("TABLE jobs"), said("jobs", "primary_tables"));
        assert_eq!(keeps("SELECT app.get_next(1)"), said("get_next", "write_functions"));
        assert!(lists.reads("get_total") && !lists.reads("total"));
    }
}
