//! Tables as messages to a client, in the formats that it asks for.

use super::table::{Column, Table, Type, Value};
use poolhouse_core::wire::request::begin;

/// Whether a column's values are sent in the binary format.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Formats(Vec<bool>);

impl Formats {
    /// As in a Bind message: none for text, one for all columns, or one for each.
    pub fn new(codes: Vec<bool>) -> Formats {
        Formats(codes)
    }

    fn is_binary(&self, column: usize) -> bool {
        match self.0.as_slice() {
            [] => false,
            [all] => *all,
            each => each.get(column).copied().unwrap_or(false),
        }
    }

    /// How many columns they are for; `None` for any number.
    pub fn columns(&self) -> Option<usize> {
        Some(self.0.len()).filter(|count| *count > 1)
    }
}

/// Writes a RowDescription message.
pub fn row_description(columns: &[Column], formats: &Formats, out: &mut Vec<u8>) {
    let body: usize = columns.iter().map(|column| column.name.len() + 19).sum();
    begin(b'T', 2 + body, out);
    out.extend_from_slice(&(columns.len() as u16).to_be_bytes());
    for (at, column) in columns.iter().enumerate() {
        out.extend_from_slice(column.name.as_bytes());
        // The column of no table.
        out.extend_from_slice(&[0; 7]);
        out.extend_from_slice(&column.kind.oid().to_be_bytes());
        out.extend_from_slice(&column.kind.size().to_be_bytes());
        out.extend_from_slice(&(-1_i32).to_be_bytes());
        out.extend_from_slice(&u16::from(formats.is_binary(at)).to_be_bytes());
    }
}

/// Writes DataRow messages.
pub fn data_rows(table: &Table, rows: &[Vec<Value>], formats: &Formats, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    for row in rows {
        body.clear();
        body.extend_from_slice(&(row.len() as u16).to_be_bytes());
        for (at, (value, column)) in row.iter().zip(&table.columns).enumerate() {
            field(value, column.kind, formats.is_binary(at), &mut body);
        }
        begin(b'D', body.len(), out);
        out.extend_from_slice(&body);
    }
}

fn field(value: &Value, kind: Type, binary: bool, out: &mut Vec<u8>) {
    let Some(text) = value.to_text() else {
        out.extend_from_slice(&(-1_i32).to_be_bytes());
        return;
    };
    let whole = if let Value::Int(number) = value { *number } else { 0 };
    let bytes: Vec<u8> = match kind {
        _ if !binary => text.as_bytes().to_vec(),
        Type::Bool => vec![u8::from(text == "t")],
        Type::Text | Type::Bytea => text.as_bytes().to_vec(),
        Type::Int4 => narrow(whole).to_be_bytes().to_vec(),
        Type::Int8 => whole.to_be_bytes().to_vec(),
        Type::Numeric => numeric(whole),
    };
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(&bytes);
}

/// What does not fit becomes what comes closest.
pub fn narrow(number: i64) -> i32 {
    number.clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

/// A whole number in the binary format of `numeric`: digits of base 10,000.
fn numeric(number: i64) -> Vec<u8> {
    let mut digits = Vec::new();
    let mut rest = number.unsigned_abs();
    while rest > 0 {
        digits.push((rest % 10_000) as u16);
        rest /= 10_000;
    }
    digits.reverse();
    let weight = digits.len().saturating_sub(1) as u16;
    while digits.last() == Some(&0) {
        digits.pop();
    }
    let sign = if number < 0 { 0x4000 } else { 0 };
    let front = [digits.len() as u16, weight, sign, 0];
    front.into_iter().chain(digits).flat_map(u16::to_be_bytes).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use poolhouse_core::wire::header;

    #[test]
    fn messages_have_their_lengths() {
        let columns = vec![Column::new("a", Type::Text), Column::new("b", Type::Numeric)];
        let rows = vec![vec!["x".into(), 7_i64.into()], vec![Value::Null, Value::Null]];
        let table = Table { columns, rows };
        for formats in [Formats::default(), Formats::new(vec![true]), Formats::new(vec![false, true])] {
            let mut out = Vec::new();
            row_description(&table.columns, &formats, &mut out);
            assert_eq!(header(&out).unwrap().unwrap().message(), out.len());
            let mut out = Vec::new();
            data_rows(&table, &table.rows[..1], &formats, &mut out);
            assert_eq!(header(&out).unwrap().unwrap().message(), out.len());
        }
    }

    #[test]
    fn binary_values() {
        let binary = |value: Value, kind| {
            let mut out = Vec::new();
            field(&value, kind, true, &mut out);
            out
        };
        assert_eq!(binary(5_i64.into(), Type::Int4), [0, 0, 0, 4, 0, 0, 0, 5]);
        assert_eq!(binary(i64::MAX.into(), Type::Int4), [0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff]);
        assert_eq!(binary((-1_i64).into(), Type::Int8), [0, 0, 0, 8, 255, 255, 255, 255, 255, 255, 255, 255]);
        assert_eq!(binary("hi".into(), Type::Text), *b"\0\0\0\x02hi");
        assert_eq!(binary(Value::Null, Type::Text), [255; 4]);
        assert_eq!(numeric(0), [0; 8]);
        assert_eq!(numeric(12_345), [0, 2, 0, 1, 0, 0, 0, 0, 0, 1, 0x09, 0x29]);
        assert_eq!(numeric(-20_000), [0, 1, 0, 1, 0x40, 0, 0, 0, 0, 2]);
    }

    proptest! {
        /// Reads the digits back as PostgreSQL does.
        #[test]
        fn numerics_keep_their_value(number: i64) {
            let bytes = numeric(number);
            let words: Vec<u16> = bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            let (count, weight) = (usize::from(words[0]), i32::from(words[1] as i16));
            let mut sum = 0_i128;
            for (at, digit) in words[4..4 + count].iter().enumerate() {
                sum += i128::from(*digit) * 10_000_i128.pow((weight - at as i32) as u32);
            }
            prop_assert_eq!(if words[2] == 0x4000 { -sum } else { sum }, i128::from(number));
        }
    }
}
