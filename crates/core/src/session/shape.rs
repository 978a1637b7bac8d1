//! What a prepared statement takes and gives, as far as a client notices.

use std::hash::{Hash, Hasher};

use crate::wire;

/// What goes into a statement and what comes out, as hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Types of the parameters; not known of a portal.
    parameters: Option<u64>,
    /// Names and types of the columns of the result.
    columns: u64,
}

impl Shape {
    /// From the bodies of ParameterDescription, which a portal has not, and RowDescription; no row stands for NoData. What
    /// a column is called and what it is counts, as for PostgreSQL ("cached plan must not change result type"), not which
    /// table it is from.
    pub fn of(parameters: Option<&[u8]>, row: Option<&[u8]>) -> Shape {
        const COLUMN_BYTES: usize = 18;
        let parameters = parameters.map(|parameters| {
            let mut types = std::hash::DefaultHasher::new();
            parameters.hash(&mut types);
            types.finish()
        });
        let mut hasher = std::hash::DefaultHasher::new();
        let mut rest = row.and_then(|body| body.get(2..)).unwrap_or_default();
        row.map(|body| body.get(..2)).hash(&mut hasher);
        while let Some((name, after)) = wire::frame::split_text(rest) {
            let Some((column, after)) = after.split_at_checked(COLUMN_BYTES) else { break };
            (name, &column[6..16]).hash(&mut hasher);
            rest = after;
        }
        Shape { parameters, columns: hasher.finish() }
    }

    #[cfg(test)]
    pub fn from_hashes(parameters: Option<u64>, columns: u64) -> Shape {
        Shape { parameters, columns }
    }

    pub fn has_columns_of(self, other: Shape) -> bool {
        self.columns == other.columns
    }

    pub fn is_of_portal(self) -> bool {
        self.parameters.is_none()
    }

    /// Whether nothing is here that would be news to who was told `told`.
    pub fn fits(self, told: Shape) -> bool {
        self.has_columns_of(told) && (told.is_of_portal() || self.parameters == told.parameters)
    }
}
