//! Stands in for the crate of this name in the build of `pg_query`, which calls it for one thing: the declarations of
//! the parser's C functions in Rust. The real one needs libclang, hundreds of megabytes that few machines have, and ends
//! in a panic where it is missing. Here the declarations are kept ready (`bindings/pg_query.rs`, made by
//! `scripts/bindings.sh`), with the sum of the headers that they were made from: other headers are an error that says
//! what to do. They hold for every target whose C types are those of `std::ffi`.
//!
//! Only what `pg_query`'s build script calls is here, by the names that it calls.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The declarations, as they are written.
const DECLARATIONS: &str = include_str!("../bindings/pg_query.rs");

/// The headers whose declarations these are, beside each other in one folder.
const HEADERS: [&str; 3] = ["pg_query.h", "pg_query_scan_tokens.h", "postgres_deparse.h"];

/// [`sum`] of [`HEADERS`].
const SUM: u64 = 0xbfd4_a1cc_dbf5_a410;

/// What is to be declared.
#[derive(Debug, Default)]
pub struct Builder {
    header: PathBuf,
}

impl Builder {
    /// Names the C header, whose folder holds those that it includes.
    pub fn header(self, path: impl Into<String>) -> Builder {
        Builder { header: PathBuf::from(path.into()) }
    }

    /// Finds that the declarations belong to the header.
    ///
    /// # Errors
    ///
    /// When the headers cannot be read, or are others than those that the declarations were made from.
    pub fn generate(self) -> Result<Bindings, Unlike> {
        let folder = self.header.parent().unwrap_or(Path::new("."));
        match sum(folder) {
            Ok(SUM) => Ok(Bindings(())),
            Ok(found) => Err(Unlike(format!(
                "the headers in {} are not those that crates/bindgen was made for (their sum is {found:#018x}); \
                 scripts/bindings.sh makes the declarations anew",
                folder.display()
            ))),
            Err(error) => Err(Unlike(format!("the headers in {} cannot be read: {error}", folder.display()))),
        }
    }
}

/// Declarations that belong to their header.
#[derive(Debug)]
pub struct Bindings(());

impl Bindings {
    /// Writes the declarations to a file.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub fn write_to_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        fs::write(path, DECLARATIONS)
    }
}

/// Why there are no declarations, in words for who builds.
#[derive(Debug)]
pub struct Unlike(String);

impl fmt::Display for Unlike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unlike {}

/// FNV-1a (64 bits) of all bytes of the headers: enough to notice another version.
fn sum(folder: &Path) -> io::Result<u64> {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for header in HEADERS {
        for byte in fs::read(folder.join(header))? {
            sum = (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    Ok(sum)
}
