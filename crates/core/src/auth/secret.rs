//! A user's secret as it is written down: a password, or a form that PostgreSQL stores in its place.
//! What a secret can be used for is said where it is used: `md5`, `scram` and `Credential`.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::scram::Verifier;

/// A password, or what is stored in its place. Never printed, and overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The password itself.
    Plain(String),
    /// `md5` and 32 hexadecimal digits: md5(password, user).
    Md5(String),
    /// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, checked to be well-formed.
    Scram(String),
}

/// Why a text cannot be a secret. Does not hold the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error(
        "begins with SCRAM-SHA-256$ but does not go on as <iterations>:<salt>$<StoredKey>:<ServerKey>; \
         was it cut short?"
    )]
    /// It begins like a SCRAM verifier and does not go on like one.
    MalformedScram,
}

impl Secret {
    /// Tells the forms apart as PostgreSQL and PgBouncer do: `md5` with 32 lower-case hexadecimal digits is a hash, a
    /// well-formed `SCRAM-SHA-256$…` a verifier, everything else a password (also `md5` with anything else behind it).
    ///
    /// # Errors
    /// They would take a malformed `SCRAM-SHA-256$…` for a password, so that whoever reads the damaged line could
    /// log in by typing it. Nobody means that: here it is an error.
    pub fn parse(text: &str) -> Result<Secret, SecretError> {
        if is_md5_hash(text) {
            return Ok(Secret::Md5(text.to_owned()));
        }
        if !text.starts_with(Verifier::PREFIX) {
            return Ok(Secret::Plain(text.to_owned()));
        }
        Verifier::parse(text).map_err(|_| SecretError::MalformedScram)?;
        Ok(Secret::Scram(text.to_owned()))
    }

    /// The password, when it is known. An empty one is none: PostgreSQL accepts it from nobody, and PgBouncer's user
    /// lists write `""` for a user that has no password.
    pub fn password(&self) -> Option<&str> {
        match self {
            Secret::Plain(password) if !password.is_empty() => Some(password),
            Secret::Plain(_) | Secret::Md5(_) | Secret::Scram(_) => None,
        }
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let (Secret::Plain(text) | Secret::Md5(text) | Secret::Scram(text)) = self;
        text.zeroize();
    }
}

impl ZeroizeOnDrop for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Secret::Plain(_) => "Plain(…)",
            Secret::Md5(_) => "Md5(…)",
            Secret::Scram(_) => "Scram(…)",
        })
    }
}

fn is_md5_hash(text: &str) -> bool {
    text.strip_prefix("md5")
        .is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by PostgreSQL 15.
    const SCRAM: &str = "SCRAM-SHA-256$4096:wpqejCk8AZk/aoVFdUCE1w==$SiAt5zuiRwaEdvE+CTZ/VIMsYVJeBBbCnqlkj31maec=:ItXrfhj8eHt8NGvJ3F2Q5X3NmO1DVIXqVMO3KuM/Xk8=";

    #[test]
    fn forms_are_told_apart() {
        let plain = |text: &str| Ok(Secret::Plain(text.to_owned()));
        let hash = "md582b97a2d11135bae28f72b6c023e8b4c";
        assert_eq!(Secret::parse(hash), Ok(Secret::Md5(hash.to_owned())));
        assert_eq!(Secret::parse(SCRAM), Ok(Secret::Scram(SCRAM.to_owned())));
        for text in ["", "sesame", "md5", "md5sum", "SCRAM-SHA-256", &hash.to_uppercase(), &hash[..34], "md5ä"] {
            assert_eq!(Secret::parse(text), plain(text), "{text}");
        }
        assert_eq!(Secret::parse(&format!("md5{}", "AB".repeat(16))), plain(&format!("md5{}", "AB".repeat(16))));
    }

    #[test]
    fn damaged_verifiers_are_refused_without_being_repeated() {
        for text in ["SCRAM-SHA-256$", &SCRAM[..SCRAM.len() - 1], &SCRAM[..60], &format!("{SCRAM}x")] {
            let error = Secret::parse(text).unwrap_err();
            assert_eq!(error, SecretError::MalformedScram);
            assert!(!error.to_string().contains("4096"));
        }
    }

    #[test]
    fn debug_hides_everything() {
        assert_eq!(format!("{:?}", Secret::Plain("sesame".into())), "Plain(…)");
        assert_eq!(format!("{:?}", Secret::parse(SCRAM)), "Ok(Scram(…))");
    }

    #[test]
    fn an_empty_password_is_none() {
        assert_eq!(Secret::Plain(String::new()).password(), None);
        assert_eq!(Secret::Plain("x".into()).password(), Some("x"));
        assert_eq!(Secret::Scram(SCRAM.into()).password(), None);
    }
}
