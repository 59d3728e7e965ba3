//! Lists that come from outside, and may be of any length: a few are named, and the rest
//! is counted.

use std::fmt::Display;

/// How many are named.
pub(super) const NAMED: usize = 8;

/// The first few, and how many more there are: `a, b, c and 12 more`.
pub(super) fn few<T: Display>(all: impl IntoIterator<Item = T>) -> String {
    let mut all = all.into_iter();
    let named: Vec<String> = all.by_ref().take(NAMED).map(|one| one.to_string()).collect();
    let text = named.join(", ");
    match all.count() {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_a_few_are_named() {
        assert_eq!(few(["a", "b"]), "a, b");
        assert_eq!(few(0..8), "0, 1, 2, 3, 4, 5, 6, 7");
        assert_eq!(few(0..200_000), "0, 1, 2, 3, 4, 5, 6, 7 and 199992 more");
    }
}
