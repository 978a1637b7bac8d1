//! Which rows of a table a SHOW asks for, in which order and how many of them. Pure.

use regex::{Regex, RegexBuilder};

use super::{
    table::{Column, Table, Value},
    words::Word,
};
use poolhouse_core::wire::error::{Report, SqlState};

/// A regular expression may not take more memory than this once it is compiled.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// What follows the name of the table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// Of a SELECT; `None` for all.
    pub columns: Option<Vec<String>>,
    pub conditions: Vec<Condition>,
    pub order: Vec<Order>,
    pub limit: Option<usize>,
    pub offset: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub column: String,
    pub test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    Compare(Comparison, Word),
    /// `IN`, or `NOT IN`.
    OneOf(Vec<Word>, bool),
    /// `~` and its like, as a regular expression: whether the case is ignored, and whether it must not match.
    Matches {
        pattern: String,
        any_case: bool,
        not: bool,
    },
    /// `IS NULL`, or `IS NOT NULL`.
    IsNull(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub column: String,
    pub descending: bool,
}

/// A [`Condition`] on a table's column.
struct Check {
    column: usize,
    is_met: Box<dyn Fn(&Value) -> bool>,
}

impl Query {
    /// Leaves of the table what was asked for.
    ///
    /// # Errors
    /// The table has no such column, or a value is none of its type.
    pub fn apply(&self, mut table: Table) -> Result<Table, Report> {
        let checks = self.conditions.iter().map(|condition| condition.check(&table));
        let checks = checks.collect::<Result<Vec<_>, _>>()?;
        let order = self.order.iter().map(|order| Ok((column(&table, &order.column)?, order.descending)));
        let order = order.collect::<Result<Vec<_>, Report>>()?;
        let wanted = self.wanted(&table)?;
        table.rows.retain(|row| checks.iter().all(|check| (check.is_met)(&row[check.column])));
        table.rows.sort_by(|one, other| {
            let mut orders = order.iter().map(|(column, descending)| {
                let order = one[*column].order(&other[*column]);
                if *descending { order.reverse() } else { order }
            });
            orders.find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
        });
        table.rows.drain(..self.offset.min(table.rows.len()));
        table.rows.truncate(self.limit.unwrap_or(usize::MAX));
        if let Some(wanted) = wanted {
            table.columns = wanted.iter().map(|at| table.columns[*at].clone()).collect();
            for row in &mut table.rows {
                *row = wanted.iter().map(|at| row[*at].clone()).collect();
            }
        }
        Ok(table)
    }

    fn wanted(&self, table: &Table) -> Result<Option<Vec<usize>>, Report> {
        let Some(names) = &self.columns else { return Ok(None) };
        names.iter().map(|name| column(table, name)).collect::<Result<Vec<_>, _>>().map(Some)
    }
}

fn column(table: &Table, name: &str) -> Result<usize, Report> {
    table.column(name).ok_or_else(|| {
        let known: Vec<&str> = table.columns.iter().map(|column| &*column.name).collect();
        Report::error(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" does not exist"))
            .hint(format!("There are {}.", known.join(", ")))
    })
}

impl Condition {
    fn check(&self, table: &Table) -> Result<Check, Report> {
        let at = column(table, &self.column)?;
        let of = &table.columns[at];
        let is_met: Box<dyn Fn(&Value) -> bool> = match &self.test {
            Test::Compare(comparison, word) => {
                let (comparison, wanted) = (*comparison, literal(of, word)?);
                Box::new(move |value| comparison.is_met(value, &wanted))
            }
            Test::OneOf(words, not) => {
                let wanted = words.iter().map(|word| literal(of, word)).collect::<Result<Vec<_>, _>>()?;
                let not = *not;
                Box::new(move |value| {
                    let found = wanted.iter().any(|wanted| Comparison::Equal.is_met(value, wanted));
                    *value != Value::Null && found != not
                })
            }
            Test::Matches { pattern, any_case, not } => {
                let (regex, not) = (regex(pattern, *any_case)?, *not);
                Box::new(move |value| value.to_text().is_some_and(|text| regex.is_match(&text) != not))
            }
            Test::IsNull(is) => {
                let is = *is;
                Box::new(move |value| (*value == Value::Null) == is)
            }
        };
        Ok(Check { column: at, is_met })
    }
}

fn regex(pattern: &str, any_case: bool) -> Result<Regex, Report> {
    let built = RegexBuilder::new(pattern).case_insensitive(any_case).size_limit(PATTERN_BYTES_MAX).build();
    built.map_err(|error| {
        let why = error.to_string();
        let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Report::error(SqlState::INVALID_REGULAR_EXPRESSION, format!("invalid regular expression: {why}"))
    })
}

/// What `LIKE` matches, as a regular expression.
pub fn like(pattern: &str) -> String {
    let mut regex = String::from("(?s)^");
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '\\' => regex.push_str(&regex::escape(&characters.next().unwrap_or('\\').to_string())),
            other => regex.push_str(&regex::escape(&other.to_string())),
        }
    }
    regex.push('$');
    regex
}

/// What a word says as a value of a column's type.
fn literal(column: &Column, word: &Word) -> Result<Value, Report> {
    let text = match word {
        Word::Null => return Ok(Value::Null),
        Word::Name(name) if name.eq_ignore_ascii_case("null") => return Ok(Value::Null),
        Word::Name(text) | Word::Quoted(text) | Word::Text(text) | Word::Number(text) => text.trim(),
        // What has been bound before holds no parameters, and signs are no values.
        Word::Parameter(_) | Word::Sign(_) => "",
    };
    if !column.kind.is_number() {
        return Ok(Value::Text(text.to_owned()));
    }
    let whole = text.parse().map(Value::Int).ok();
    let number = whole.or_else(|| text.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Float));
    number.ok_or_else(|| {
        let what = format!("column \"{}\" is a number, and \"{text}\" is none", column.name);
        Report::error(SqlState::INVALID_TEXT_REPRESENTATION, what)
    })
}

impl Comparison {
    /// As in SQL, nothing compares with NULL.
    fn is_met(self, value: &Value, wanted: &Value) -> bool {
        if *value == Value::Null || *wanted == Value::Null {
            return false;
        }
        let order = value.order(wanted);
        match self {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::AtMost => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::AtLeast => order.is_ge(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::admin::{
        command::{Command, read},
        table::Type,
        words::statements,
    };

    fn query(text: &str) -> Query {
        let words = statements(&format!("SHOW pools {text}")).unwrap().remove(0);
        match read(&words) {
            Ok(Command::Show(_, query)) => query,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn table() -> Table {
        let columns = vec![
            Column::new("database", Type::Text),
            Column::new("cl_active", Type::Int4),
            Column::new("lag", Type::Numeric),
        ];
        let row = |name: &str, active: i64, lag: Option<f64>| vec![name.into(), active.into(), lag.into()];
        let rows =
            vec![row("app", 3, Some(0.5)), row("App", 10, None), row("other", -1, Some(2.0)), row("a%b", 3, Some(1.5))];
        Table { columns, rows }
    }

    fn names(text: &str) -> Vec<String> {
        let table = query(text).apply(table()).unwrap();
        table.rows.iter().map(|row| row[0].to_text().unwrap().into_owned()).collect()
    }

    #[test]
    fn rows_are_chosen() {
        for (text, expected) in [
            ("", &["app", "App", "other", "a%b"][..]),
            ("where database = 'app'", &["app"]),
            ("where database = app", &["app"]),
            ("where DATABASE <> 'app' and cl_active < 10", &["other", "a%b"]),
            ("where cl_active >= 3 and cl_active <= '3'", &["app", "a%b"]),
            ("where cl_active = -1", &["other"]),
            ("where cl_active > 2.5", &["app", "App", "a%b"]),
            ("where lag > 1", &["other", "a%b"]),
            ("where lag is null", &["App"]),
            ("where lag is not null", &["app", "other", "a%b"]),
            ("where lag = null", &[]),
            ("where lag != 2", &["app", "a%b"]),
            ("where database in ('app', 'other')", &["app", "other"]),
            ("where cl_active not in (3, 10)", &["other"]),
            ("where database like 'a%'", &["app", "a%b"]),
            ("where database like 'a\\%b'", &["a%b"]),
            ("where database ilike 'APP'", &["app", "App"]),
            ("where database not like '%p%'", &["other", "a%b"]),
            ("where database ~ '^a'", &["app", "a%b"]),
            ("where database ~* '^a'", &["app", "App", "a%b"]),
            ("where database !~ '^a'", &["App", "other"]),
            ("where database !~* '^a'", &["other"]),
            ("order by cl_active", &["other", "app", "a%b", "App"]),
            ("order by cl_active desc, database asc", &["App", "a%b", "app", "other"]),
            ("order by lag", &["app", "a%b", "other", "App"]),
            ("limit 1", &["app"]),
            ("order by database limit 2 offset 1", &["a%b", "app"]),
            ("limit 0", &[]),
            ("offset 9", &[]),
        ] {
            assert_eq!(names(text), expected, "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_said() {
        for (text, code, words) in [
            ("where user = 'a'", "42703", "column \"user\" does not exist"),
            ("order by nonsense", "42703", "column \"nonsense\" does not exist"),
            ("where cl_active = 'many'", "22P02", "\"many\" is none"),
            ("where database ~ '('", "2201B", "invalid regular expression"),
            ("where database ~ '(a{999}){999}{999}'", "2201B", "invalid regular expression"),
        ] {
            let report = query(text).apply(table()).unwrap_err();
            assert_eq!(report.code.0, code, "{text}");
            assert!(report.message.contains(words), "{text}: {}", report.message);
        }
    }

    #[test]
    fn columns_are_chosen() {
        let words = statements("SELECT lag, database FROM pools WHERE cl_active = 3").unwrap().remove(0);
        let Ok(Command::Show(_, query)) = read(&words) else { panic!() };
        let table = query.apply(table()).unwrap();
        assert_eq!(table.columns.iter().map(|column| &*column.name).collect::<Vec<_>>(), ["lag", "database"]);
        assert_eq!(table.rows[0], [Value::Float(0.5), "app".into()]);
    }

    proptest! {
        /// A condition and its opposite share the rows without NULL; the order is one; a limit takes from the front.
        #[test]
        fn nothing_is_lost(numbers in prop::collection::vec(prop::option::of(-5_i64..5), 0..30), at in -5_i64..5, most in 0_usize..9) {
            let columns = vec![Column::new("n", Type::Int8)];
            let rows: Vec<_> = numbers.iter().map(|number| vec![Value::from(*number)]).collect();
            let table = Table { columns, rows };
            let rows = |text: &str| query(text).apply(table.clone()).unwrap().rows;
            for (one, other) in [("=", "<>"), ("<", ">="), (">", "<=")] {
                let count = rows(&format!("where n {one} {at}")).len() + rows(&format!("where n {other} {at}")).len();
                prop_assert_eq!(count, numbers.iter().flatten().count());
            }
            let sorted = rows("order by n");
            prop_assert_eq!(sorted.len(), numbers.len());
            prop_assert!(sorted.is_sorted_by(|one, other| one[0].order(&other[0]).is_le()));
            let front = rows(&format!("order by n limit {most}"));
            prop_assert_eq!(&front[..], &sorted[..most.min(sorted.len())]);
        }
    }
}
