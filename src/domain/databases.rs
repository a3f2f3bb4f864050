//! Several databases of one server by one entry of a config: how the sources are named that they become.

use super::ids::SourceName;

/// Characters of a name that stand for a database which cannot stand for itself.
const CLEANED_CHARS: usize = 24;
/// Digits behind them that keep two such databases apart.
const HASH_DIGITS: usize = 8;
/// The longest name.
const MAX_NAME_CHARS: usize = 63;
/// The longest name of an entry that means several databases: so that a source tells whose it is.
pub const MAX_ENTRY_CHARS: usize = MAX_NAME_CHARS - CLEANED_CHARS - HASH_DIGITS - 2;

/// The source that a database becomes: of entry `db`, `shop` is `db-shop`. What is not of small letters, digits and `_` alone,
/// or is too long, is made so, with the beginning of its hash behind it: `db-my_shop-1f2e3d4c`.
///
/// # Panics
/// Never: the entry's name is one, and so what is made of it.
#[must_use]
pub fn source_of(entry: &SourceName, database: &str) -> SourceName {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let itself = format!("{entry}-{database}");
    let name = if !database.is_empty() && database.chars().all(plain) && itself.len() <= MAX_NAME_CHARS {
        itself
    } else {
        let hash = blake3::hash(database.as_bytes()).to_hex();
        let lower = database.to_ascii_lowercase();
        let clean = lower.chars().map(|c| if plain(c) { c } else { '_' });
        let entry: String = entry.as_str().chars().take(MAX_ENTRY_CHARS).collect();
        let cleaned: String = clean.take(CLEANED_CHARS).collect();
        format!("{entry}-{cleaned}-{}", &hash[..HASH_DIGITS])
    };
    #[expect(clippy::expect_used, reason = "made of the characters of a name, a letter first")]
    name.parse().expect("a name")
}

/// Whether a source may be one that [`source_of`] makes of this entry.
#[must_use]
pub fn is_of(entry: &SourceName, source: &SourceName) -> bool {
    source.as_str().strip_prefix(entry.as_str()).is_some_and(|rest| rest.len() > 1 && rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_stand_for_themselves() {
        let entry: SourceName = "db".parse().unwrap();
        assert_eq!(source_of(&entry, "shop_2").as_str(), "db-shop_2");
        for odd in ["Shop", "my shop", "a-b", "a_b c", "", "x".repeat(63).as_str(), "\u{fc}ber"] {
            let name = source_of(&entry, odd);
            assert!(is_of(&entry, &name) && name.as_str().len() > "db-".len() + HASH_DIGITS, "{odd:?}: {name}");
        }
        assert!(!is_of(&entry, &"db".parse().unwrap()) && !is_of(&entry, &"db2-shop".parse().unwrap()));
    }

    proptest::proptest! {
        #[test]
        fn two_databases_have_two_names(one in ".{0,70}", other in ".{0,70}", entry in "[a-z][a-z0-9_-]{0,28}") {
            let entry: SourceName = entry.parse().unwrap();
            proptest::prop_assert_eq!(one == other, source_of(&entry, &one) == source_of(&entry, &other));
            proptest::prop_assert!(is_of(&entry, &source_of(&entry, &one)));
        }
    }
}
