//! What the console shows, as plain data: columns with a name and a type, and rows of values. How they are written to a
//! client is for `encode`, which rows are left for `filter`.

use std::{borrow::Cow, cmp::Ordering};

use serde::{Serialize, Serializer};

/// A column's type, as a driver is told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Text,
    Int4,
    Int8,
    Numeric,
    Bytea,
    Bool,
}

impl Type {
    /// Its oid in PostgreSQL's catalog (`pg_type`).
    pub fn oid(self) -> u32 {
        match self {
            Type::Text => 25,
            Type::Bytea => 17,
            Type::Bool => 16,
            Type::Int4 => 23,
            Type::Int8 => 20,
            Type::Numeric => 1700,
        }
    }

    /// Bytes of a value, -1 when that differs.
    pub fn size(self) -> i16 {
        match self {
            Type::Bool => 1,
            Type::Int4 => 4,
            Type::Int8 => 8,
            Type::Text | Type::Numeric | Type::Bytea => -1,
        }
    }

    pub fn is_number(self) -> bool {
        !matches!(self, Type::Text | Type::Bytea | Type::Bool)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: Cow<'static, str>,
    pub kind: Type,
}

impl Column {
    pub const fn new(name: &'static str, kind: Type) -> Column {
        Column { name: Cow::Borrowed(name), kind }
    }
}

/// One value. A column's values are `Null` or of the column's type: `Text` for text, `Float` for float8, `Int` for all
/// others. As JSON, that is what it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    Null,
    Text(String),
    Int(i64),
    Float(f64),
}

impl Value {
    /// As PostgreSQL's text format has it; `None` is NULL.
    pub fn to_text(&self) -> Option<Cow<'_, str>> {
        match self {
            Value::Null => None,
            Value::Text(text) => Some(text.into()),
            Value::Int(number) => Some(number.to_string().into()),
            Value::Float(number) => Some(number.to_string().into()),
        }
    }

    /// The order of values of one column; NULL comes last, as PostgreSQL has it.
    pub fn order(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Null, Value::Null) => Ordering::Equal,
            (Value::Null, _) => Ordering::Greater,
            (_, Value::Null) => Ordering::Less,
            (Value::Int(one), Value::Int(other)) => one.cmp(other),
            (Value::Text(one), Value::Text(other)) => one.cmp(other),
            (one, other) => one.number().total_cmp(&other.number()),
        }
    }

    /// A number, for comparisons with numbers that are not whole; what is none is above all.
    pub fn number(&self) -> f64 {
        match self {
            Value::Int(number) => *number as f64,
            Value::Float(number) => *number,
            Value::Text(text) => text.trim().parse().unwrap_or(f64::INFINITY),
            Value::Null => f64::INFINITY,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Value {
        Value::from(number as u64)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Value {
        Value::Int(number.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Int(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Float(number)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

/// A row of anything that becomes a value.
macro_rules! row {
    ($($value:expr),* $(,)?) => { vec![$($crate::admin::table::Value::from($value)),*] };
}

pub(super) use row;

/// Columns and rows; each row has a value for each column. As JSON it is a list of objects, with the columns in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    pub fn new(columns: Vec<Column>) -> Table {
        Table { columns, rows: Vec::new() }
    }

    /// Where a column is, whatever the case of its name.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
    }
}

impl Serialize for Table {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let named = |row| Named { columns: &self.columns, row };
        serializer.collect_seq(self.rows.iter().map(|row| named(row)))
    }
}

/// A row, as JSON.
struct Named<'t> {
    columns: &'t [Column],
    row: &'t [Value],
}

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.columns.iter().map(|column| &column.name).zip(self.row))
    }
}
