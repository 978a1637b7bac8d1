//! PgBouncer's user lists (`auth_file`): one `"user" "secret"` per line.
//! Reads text, not files; which secret wins when a user is listed twice is the caller's choice.

use super::{Secret, SecretError};

/// A line that cannot be read. Never repeats the line, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct UserlistError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: UserlistMistake,
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UserlistMistake {
    /// Text before the first quote.
    #[error("does not begin with a user name in double quotes")]
    NoUser,
    /// Nothing between the first two quotes.
    #[error("the user name is empty")]
    EmptyUser,
    /// The line ends within the name.
    #[error("the user name has no closing quote")]
    OpenUser,
    /// Something else than a second field, or nothing, after the name.
    #[error("the user name is not followed by a secret in double quotes")]
    NoSecret,
    /// The line ends within the secret.
    #[error("the secret has no closing quote")]
    OpenSecret,
    /// The second field is no secret.
    #[error("the secret {0}")]
    BadSecret(#[from] SecretError),
}

/// Reads a user list, in its order. A quote inside quotes is doubled; what follows the second field is ignored; so are
/// empty lines and those that begin with `;` or `#`. A user without password has the secret `""`. A user may come
/// twice: PgBouncer takes the last.
///
/// # Errors
/// Every line that cannot be read, not only the first.
pub fn userlist(text: &str) -> Result<Vec<(String, Secret)>, Vec<UserlistError>> {
    let mut users = Vec::new();
    let mut errors = Vec::new();
    // Editors of another system leave a byte order mark.
    for (index, line) in text.trim_start_matches('\u{FEFF}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        match entry(line) {
            Ok(user) => users.push(user),
            Err(what) => errors.push(UserlistError { line: index + 1, what }),
        }
    }
    if errors.is_empty() { Ok(users) } else { Err(errors) }
}

fn entry(line: &str) -> Result<(String, Secret), UserlistMistake> {
    let inner = line.strip_prefix('"').ok_or(UserlistMistake::NoUser)?;
    let (user, rest) = quoted(inner).ok_or(UserlistMistake::OpenUser)?;
    if user.is_empty() {
        return Err(UserlistMistake::EmptyUser);
    }
    let inner = rest.trim_start().strip_prefix('"').ok_or(UserlistMistake::NoSecret)?;
    let (secret, _) = quoted(inner).ok_or(UserlistMistake::OpenSecret)?;
    Ok((user, Secret::parse(&secret)?))
}

/// Takes a field whose opening quote is gone: its text with doubled quotes made single, and what follows.
fn quoted(inner: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut rest = inner;
    loop {
        let (before, after) = rest.split_once('"')?;
        text.push_str(before);
        match after.strip_prefix('"') {
            Some(after_pair) => {
                text.push('"');
                rest = after_pair;
            }
            None => return Some((text, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(user: &str, password: &str) -> (String, Secret) {
        (user.to_owned(), Secret::Plain(password.to_owned()))
    }

    #[test]
    fn a_list_with_everything() {
        let text = "\u{FEFF}; comment\n# comment\n\n\"alice\" \"sesame\"\r\n  \"bob\"\t\"a \"\"b\"\" c\" ignored \"too\"\n\
                    \"o\"\"hara\"\"\" \"\"\"\"\n\"nobody\" \"\"\n\"glued\"\"\"\"x\"\n\
                    \"old\" \"md582b97a2d11135bae28f72b6c023e8b4c\"";
        // `"glued""""x"` is one field, `glued""x`, without a second.
        let errors = userlist(text).unwrap_err();
        assert_eq!(errors, [UserlistError { line: 8, what: UserlistMistake::NoSecret }]);
        let users = userlist(&text.replace("\"glued\"\"\"\"x\"\n", "\"é ü\"\"\" \"\u{1F511}\"\n")).unwrap();
        assert_eq!(
            users,
            [
                plain("alice", "sesame"),
                plain("bob", "a \"b\" c"),
                plain("o\"hara\"", "\""),
                plain("nobody", ""),
                plain("é ü\"", "\u{1F511}"),
                ("old".to_owned(), Secret::Md5("md582b97a2d11135bae28f72b6c023e8b4c".to_owned())),
            ]
        );
    }

    #[test]
    fn every_malformed_line_is_reported() {
        let text = "alice sesame\n\"\" \"x\"\n\"bob\n\"bob\"\n\"bob\" sesame\n\"bob\" \"sesame\n\"ok\" \"ok\"\n\
                    \"bob\" \"SCRAM-SHA-256$4096:\"";
        let found: Vec<_> = userlist(text).unwrap_err().into_iter().map(|e| (e.line, e.what)).collect();
        use UserlistMistake::*;
        assert_eq!(
            found,
            [
                (1, NoUser),
                (2, EmptyUser),
                (3, OpenUser),
                (4, NoSecret),
                (5, NoSecret),
                (6, OpenSecret),
                (8, BadSecret(SecretError::MalformedScram)),
            ]
        );
    }

    #[test]
    fn errors_name_the_line_and_not_the_secret() {
        let error = &userlist("\n\"bob\" \"sesame").unwrap_err()[0];
        assert_eq!(error.to_string(), "line 2: the secret has no closing quote");
    }

    #[test]
    fn an_empty_list_is_a_list() {
        assert_eq!(userlist(""), Ok(Vec::new()));
    }

    proptest::proptest! {
        #[test]
        fn what_is_quoted_is_read_back(user in "[^\\r\\n\u{FEFF}]{1,20}", password in "[^\\r\\n]{0,20}") {
            let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
            if !password.starts_with("SCRAM-SHA-256$") {
                let line = format!("{} {}", quote(&user), quote(&password));
                proptest::prop_assert_eq!(userlist(&line).unwrap(), [(user, Secret::parse(&password).unwrap())]);
            }
        }

        #[test]
        fn nothing_panics(text: String) {
            let _ = userlist(&text);
        }
    }
}
