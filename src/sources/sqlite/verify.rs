//! A restored database against the facts that were taken with its backup. As at the source is the yardstick: foreign
//! keys, `CHECK` and `NOT NULL` that did not hold there need not hold here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::connection::{Connection, Usage};
use super::{Trouble, facts, shown};
use crate::domain::check::Check;
use crate::domain::contents::{SqliteFacts, TableFacts};
use crate::sources::SourceError;

/// `PRAGMA integrity_check` stops after this many findings.
const MAX_FINDINGS: usize = 1000;
/// How SQLite begins its complaint of something that an application brings along, or that a schema must not call.
const APPLICATION_ONLY: [&str; 4] =
    ["no such collation sequence: ", "no such function: ", "unknown function: ", "unsafe use of "];
/// A check's text names this many of them.
const NAMED_FINDINGS: usize = 5;

/// Compares the file at `path` with `facts`, one [`Check`] each for its structure, its schema, its version, its pages
/// and every table. Nothing of the file or beside it is changed; nobody else may write to it meanwhile.
///
/// What SQLite has to say against the file is a check that did not pass, not an error.
///
/// # Errors
/// When there is no such file.
pub fn verify(path: &Path, facts: &SqliteFacts) -> Result<Vec<Check>, SourceError> {
    let stat = std::fs::symlink_metadata(path).map_err(|cause| SourceError::io("read", shown(path), cause))?;
    if !stat.is_file() {
        return Err(SourceError::RootUnusable { path: shown(path), what: "not a regular file".to_owned() });
    }
    let mut checks = Vec::new();
    if let Err(trouble) = compare(path, facts, &mut checks) {
        let actual = trouble.of(path).to_string();
        checks.push(Check { name: "readable".to_owned(), passed: false, expected: "yes".to_owned(), actual });
    }
    Ok(checks)
}

fn compare(path: &Path, expected: &SqliteFacts, checks: &mut Vec<Check>) -> Result<(), Trouble> {
    let connection = Connection::open(path, Usage::Scratch)?;
    checks.push(integrity(&connection)?);
    connection.close()?;
    // SQLite remembers of an index that its collation was missing, so the facts get a connection of their own.
    let connection = Connection::open(path, Usage::Scratch)?;
    connection.stand_in_for_collations()?;
    let actual = facts::read(&connection, expected.file.clone())?;
    connection.close()?;
    checks.push(Check::equal("user_version", expected.user_version, actual.user_version));
    checks.push(Check::equal("schema", expected.schema, actual.schema));
    let size = |facts: &SqliteFacts| format!("{} pages of {} bytes", facts.pages, facts.page_bytes);
    checks.push(Check::equal("pages", size(expected), size(&actual)));
    compare_tables(&expected.tables, &actual.tables, checks);
    Ok(())
}

fn compare_tables(expected: &[TableFacts], actual: &[TableFacts], checks: &mut Vec<Check>) {
    let by_name = |tables: &[TableFacts]| -> BTreeMap<String, String> {
        let said = |table: &TableFacts| format!("{} rows, checksum {}", table.rows, table.checksum);
        tables.iter().map(|table| (table.name.clone(), said(table))).collect()
    };
    let (expected, actual) = (by_name(expected), by_name(actual));
    let names: BTreeSet<&String> = expected.keys().chain(actual.keys()).collect();
    for name in names {
        let said = |tables: &BTreeMap<String, String>| tables.get(name).cloned().unwrap_or("no such table".to_owned());
        checks.push(Check::equal(format!("table {name}"), said(&expected), said(&actual)));
    }
}

/// SQLite's own check. Where a table needs a function or a collation that only its application has, the tables are
/// checked one by one, and those that cannot be are named.
fn integrity(connection: &Connection) -> Result<Check, Trouble> {
    let mut findings = Vec::new();
    let mut unchecked = Vec::new();
    let whole = format!("PRAGMA main.integrity_check({MAX_FINDINGS})");
    if collect(connection, &whole, &mut findings)?.is_some() {
        for table in tables(connection)? {
            let one = format!("PRAGMA main.integrity_check('{}')", table.replace('\'', "''"));
            if let Some(why) = collect(connection, &one, &mut findings)? {
                unchecked.push(format!("{table}: {why}"));
            }
        }
    }
    let mut actual = if findings.is_empty() { "ok".to_owned() } else { shortened(&findings) };
    if !unchecked.is_empty() {
        actual.push_str(&format!(" (not checked: {})", shortened(&unchecked)));
    }
    Ok(Check { name: "integrity".to_owned(), passed: findings.is_empty(), expected: "ok".to_owned(), actual })
}

fn shortened(findings: &[String]) -> String {
    let more = if findings.len() > NAMED_FINDINGS { "; ..." } else { "" };
    format!("{}{more}", findings[..findings.len().min(NAMED_FINDINGS)].join("; "))
}

/// Runs a check and adds what it finds. Gives SQLite's words where the check needs what only the application has.
fn collect(connection: &Connection, sql: &str, findings: &mut Vec<String>) -> Result<Option<String>, Trouble> {
    let mut lines = 0;
    let run = connection.rows(sql, None, |row| {
        lines += 1;
        let said = String::from_utf8_lossy(row.get_ref(0)?.as_bytes()?).into_owned();
        let as_at_the_source = said == "ok" || said.starts_with("NULL value in ");
        if !as_at_the_source {
            findings.push(said);
        }
        Ok(())
    });
    match run {
        Ok(()) if lines >= MAX_FINDINGS && findings.is_empty() => {
            findings
                .push(format!("at least {lines} values are NULL where they must not be, and hide what else there is"));
            Ok(None)
        }
        Ok(()) if lines == 0 => {
            findings.push("the check said nothing".to_owned());
            Ok(None)
        }
        Ok(()) => Ok(None),
        Err(Trouble::Sqlite(rusqlite::Error::SqliteFailure(failure, said))) => {
            let said = said.unwrap_or_else(|| failure.to_string());
            if APPLICATION_ONLY.iter().any(|beginning| said.starts_with(beginning)) {
                return Ok(Some(said));
            }
            // A database may be too broken for the check itself.
            findings.push(said);
            Ok(None)
        }
        Err(other) => Err(other),
    }
}

fn tables(connection: &Connection) -> Result<Vec<String>, Trouble> {
    let sql = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name";
    let mut tables: Vec<String> = Vec::new();
    connection.rows(sql, None, |row| {
        tables.push(row.get(0)?);
        Ok(())
    })?;
    Ok(tables)
}
