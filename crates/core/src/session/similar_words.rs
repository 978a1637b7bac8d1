//! Which known word somebody may have meant.

/// Longer words are compared by their beginning only: the comparison takes the product of both lengths.
const LENGTH_MAX: usize = 64;

/// The known word that is closest to `word`, if it is close enough for a slip of the fingers: one edit for each three
/// letters, where swapping two neighbours is one.
pub fn nearest_word<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let allowed = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (edits(word, candidate), candidate))
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// The optimal string alignment distance, upper and lower case alike.
fn edits(left: &str, right: &str) -> usize {
    let letters = |word: &str| word.to_lowercase().replace('-', "_").chars().take(LENGTH_MAX).collect::<Vec<char>>();
    let (left, right) = (letters(left), letters(right));
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let differs = usize::from(left[i - 1] != right[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + differs);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_fingers_are_recognised() {
        let known = ["size", "min_idle", "checkout_timeout", "idle_timeout", "query_timeout"];
        let check = |word, expected| assert_eq!(nearest_word(word, known), expected, "{word}");
        check("checkout_timout", Some("checkout_timeout"));
        check("checkout-timeout", Some("checkout_timeout"));
        check("SIZE", Some("size"));
        check("szie", Some("size"));
        check("siz", Some("size"));
        check("minidle", Some("min_idle"));
        check("listen", None);
        check("", None);
        check("ü", None);
    }
}
