//! What is in sequences and large objects of a restored database, against what was stored of them.

use std::collections::BTreeSet;

use sqlx::Row as _;

use super::named;
use crate::domain::check::Check;
use crate::domain::contents::{PostgresFacts, PostgresSequenceFacts};
use crate::sources::SourceError;
use crate::sources::postgres::connect::Access;
use crate::sources::postgres::session::Session;
use crate::sources::postgres::values::{LargeObjects, sequence_values};

const SEQUENCES: &str = "SELECT n.nspname::text, c.relname::text FROM pg_class c \
     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'S'";

/// One check for the sequences, where the facts have them, and one for the large objects.
///
/// # Errors
/// When the server does not let us in, or the connection is lost.
pub(super) async fn compare(access: &Access, facts: &PostgresFacts) -> Result<Vec<Check>, SourceError> {
    let mut session = Session::open(access).await?;
    let mut checks = Vec::new();
    if let Some(stored) = &facts.sequences {
        checks.push(sequences(&mut session, stored).await?);
    }
    checks.push(large_objects(&mut session, facts).await?);
    session.close().await;
    Ok(checks)
}

/// Every sequence whose value is stored must be there and say the same. Others (an extension's, say) are as they were made.
async fn sequences(session: &mut Session, stored: &[PostgresSequenceFacts]) -> Result<Check, SourceError> {
    let tried = "cannot read the sequences";
    let rows = session.rows(SEQUENCES, tried).await?;
    let there: Result<BTreeSet<(String, String)>, sqlx::Error> =
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect();
    let there = there.map_err(|error| session.wrong(tried, error))?;
    let is_there = |it: &&PostgresSequenceFacts| there.contains(&(it.schema.clone(), it.name.clone()));
    let names: Vec<(&str, &str)> =
        stored.iter().filter(is_there).map(|it| (it.schema.as_str(), it.name.as_str())).collect();
    let found = match sequence_values(session, &names).await {
        Ok(found) => found,
        Err(trouble) => {
            let wrong = session.wrong(tried, trouble);
            return refused("sequences", of_all(stored.len()), wrong);
        }
    };
    Ok(sequence_check(stored, &found))
}

fn sequence_check(stored: &[PostgresSequenceFacts], found: &[PostgresSequenceFacts]) -> Check {
    let mut found = found.iter().peekable();
    let mut different = Vec::new();
    for wanted in stored {
        let name = format!("{}.{}", wanted.schema, wanted.name);
        // In the same order, with gaps.
        match found.next_if(|it| (&it.schema, &it.name) == (&wanted.schema, &wanted.name)) {
            None => different.push(format!("{name} is missing")),
            Some(is) if is != wanted => different.push(format!("{name} is {} and was {}", value(is), value(wanted))),
            Some(_) => {}
        }
    }
    let expected = of_all(stored.len());
    let actual = if different.is_empty() { expected.clone() } else { named(&different) };
    Check::equal("sequences", expected, actual)
}

fn of_all(count: usize) -> String {
    format!("the stored values of {count}")
}

fn value(sequence: &PostgresSequenceFacts) -> String {
    format!("{}{}", sequence.last_value, if sequence.is_called { "" } else { " (not yet given)" })
}

/// Their number, sizes and bytes; of a backup that does not know the bytes, the others.
async fn large_objects(session: &mut Session, facts: &PostgresFacts) -> Result<Check, SourceError> {
    let name = "large objects";
    let shown = |(count, bytes): (u64, u64), checksum: &str| match &facts.large_object_checksum {
        Some(_) => format!("{count} of {bytes} bytes together, sum {checksum}"),
        None => format!("{count} of {bytes} bytes together"),
    };
    let expected = shown(facts.large_objects, facts.large_object_checksum.as_deref().unwrap_or_default());
    match LargeObjects::new().sum_up(session).await {
        Ok(sum) => {
            let (totals, checksum) = sum.finish();
            Ok(Check::equal(name, expected, shown(totals, &checksum)))
        }
        Err(error) => refused(name, expected, error),
    }
}

/// What the server refuses is a check that did not pass; a connection that is gone is everybody's.
fn refused(name: &str, expected: String, error: SourceError) -> Result<Check, SourceError> {
    match error {
        SourceError::Server { what, transient: false, .. } => Ok(Check::equal(name, expected, what)),
        other => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(name: &str, last_value: i64, is_called: bool) -> PostgresSequenceFacts {
        PostgresSequenceFacts { schema: "public".into(), name: name.into(), last_value, is_called }
    }

    #[test]
    fn sequences_that_differ_are_named() {
        let stored = [sequence("a", 1, true), sequence("b", 1, false), sequence("c", -7, true)];
        assert!(sequence_check(&stored, &stored).passed);
        assert!(sequence_check(&[], &[]).passed);
        let found = [sequence("a", 1, false), sequence("c", -8, true)];
        let check = sequence_check(&stored, &found);
        assert!(!check.passed);
        assert_eq!(
            check.actual,
            "public.a is 1 (not yet given) and was 1, public.b is missing, public.c is -8 and was -7"
        );
    }
}
