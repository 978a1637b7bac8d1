//! DateStyle, the one setting whose values may leave open half of what it says: how dates are written, or the order of day,
//! month and year in what is read. A server takes the missing half from the value that is there (`check_datestyle` in
//! PostgreSQL's `variable.c`), so what came before decides.

/// What a value says. German brings an order with it, and DEFAULT both halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Halves<'a> {
    style: Option<&'a str>,
    order: Option<&'a str>,
}

impl Halves<'_> {
    fn of(value: &str) -> Halves<'_> {
        let mut halves = Halves::default();
        let mut german = false;
        for word in value.split(',').map(|word| word.trim_matches([' ', '\t', '\n', '\r', '"'])) {
            let begins = |with: &str| word.get(..with.len()).is_some_and(|head| head.eq_ignore_ascii_case(with));
            if begins("german") || begins("default") {
                german |= begins("german");
                halves.style = Some(word);
                if begins("default") {
                    halves.order = halves.order.or(Some(word));
                }
            } else if begins("iso") || begins("sql") || begins("postgres") {
                halves.style = Some(word);
            } else if !word.is_empty() {
                halves.order = Some(word);
            }
        }
        if german {
            halves.order = halves.order.or(Some("DMY"));
        }
        halves
    }
}

/// Whether this value of a setting builds on the one that is there.
pub(super) fn leaves_open(name: &str, value: &str) -> bool {
    name.eq_ignore_ascii_case("datestyle") && {
        let Halves { style, order } = Halves::of(value);
        style.is_none() || order.is_none()
    }
}

/// What a value becomes that builds on `before`; nothing when it does not.
pub(super) fn upon(name: &str, before: &str, value: &str) -> Option<String> {
    if !leaves_open(name, value) {
        return None;
    }
    let (before, value) = (Halves::of(before), Halves::of(value));
    let words = [value.style.or(before.style), value.order.or(before.order)];
    Some(words.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_halves_leave_something_open() {
        for value in ["ISO", "sql", "Postgres", "MDY", "european", "us", "\"ISO\"", "wrong", ""] {
            assert!(leaves_open("DateStyle", value), "{value}");
            assert!(!leaves_open("intervalstyle", value), "{value}");
        }
        for value in ["ISO, MDY", "dmy,sql", "German", "default", "Postgres, European", " ISO , \"YMD\" "] {
            assert!(!leaves_open("datestyle", value), "{value}");
        }
    }
}
