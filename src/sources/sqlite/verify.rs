//! A restored database against the facts that were taken with its backup. As at the source is the yardstick: foreign
//! keys, `CHECK` and `NOT NULL` that did not hold there need not hold here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sqlx::Row;

use super::connection::{Connection, Usage};
use super::{Trouble, facts, shown};
use crate::domain::check::Check;
use crate::domain::contents::{SqliteFacts, TableFacts};
use crate::sources::SourceError;

/// `PRAGMA integrity_check` stops after this many findings.
const MAX_FINDINGS: usize = 1000;
/// A check's text names this many of them.
const NAMED_FINDINGS: usize = 5;

/// Compares the file at `path` with `facts`, one [`Check`] each for its structure, its schema, its version, its pages
/// and every table. Nothing of the file or beside it is changed; nobody else may write to it meanwhile.
///
/// What SQLite has to say against the file is a check that did not pass, not an error.
///
/// # Errors
/// When there is no such file.
pub fn verify(path: &Path, facts: &SqliteFacts, runtime: &tokio::runtime::Handle) -> Result<Vec<Check>, SourceError> {
    let stat = std::fs::symlink_metadata(path).map_err(|cause| SourceError::io("read", shown(path), cause))?;
    if !stat.is_file() {
        return Err(SourceError::RootUnusable { path: shown(path), what: "not a regular file".to_owned() });
    }
    let mut checks = Vec::new();
    if let Err(trouble) = compare(path, facts, runtime, &mut checks) {
        let actual = trouble.of(path).to_string();
        checks.push(Check { name: "readable".to_owned(), passed: false, expected: "yes".to_owned(), actual });
    }
    Ok(checks)
}

fn compare(
    path: &Path,
    expected: &SqliteFacts,
    runtime: &tokio::runtime::Handle,
    checks: &mut Vec<Check>,
) -> Result<(), Trouble> {
    let mut connection = Connection::open(path, Usage::Scratch, runtime)?;
    let foreign = connection.foreign_collations()?;
    checks.push(integrity(&mut connection, &foreign)?);
    for collation in &foreign {
        connection.stand_in(collation)?;
    }
    let actual = facts::read(&mut connection, expected.file.clone())?;
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

/// SQLite's own check. Where an application's own collation is missing here, the order of what it sorted cannot be
/// checked: then each table that does without is checked, and the others are named.
fn integrity(connection: &mut Connection, foreign: &BTreeSet<String>) -> Result<Check, Trouble> {
    let mut findings = Vec::new();
    let mut unchecked = Vec::new();
    if foreign.is_empty() {
        collect(connection, format!("PRAGMA main.integrity_check({MAX_FINDINGS})"), &mut findings)?;
    } else {
        for (table, checkable) in tables(connection, foreign)? {
            if checkable {
                let quoted = table.replace('\'', "''");
                collect(connection, format!("PRAGMA main.integrity_check('{quoted}')"), &mut findings)?;
            } else {
                unchecked.push(table);
            }
        }
    }
    let mut actual = if findings.is_empty() {
        "ok".to_owned()
    } else {
        let more = if findings.len() > NAMED_FINDINGS { "; ..." } else { "" };
        format!("{}{more}", findings[..findings.len().min(NAMED_FINDINGS)].join("; "))
    };
    if !unchecked.is_empty() {
        let names: Vec<&str> = foreign.iter().map(String::as_str).collect();
        actual.push_str(&format!(
            " (not checked, for want of the collation {}: {})",
            names.join(", "),
            unchecked.join(", ")
        ));
    }
    Ok(Check { name: "integrity".to_owned(), passed: findings.is_empty(), expected: "ok".to_owned(), actual })
}

fn collect(connection: &mut Connection, sql: String, findings: &mut Vec<String>) -> Result<(), Trouble> {
    let mut lines = 0;
    let run = connection.rows(sql, None, |row| {
        lines += 1;
        let said: String = row.try_get(0)?;
        let as_at_the_source = said == "ok" || said.starts_with("NULL value in ");
        if !as_at_the_source {
            findings.push(said);
        }
        Ok(())
    });
    match run {
        Ok(()) => {}
        // A database may be too broken for the check itself.
        Err(Trouble::Sqlite(sqlx::Error::Database(error))) => findings.push(error.message().to_owned()),
        Err(other) => return Err(other),
    }
    if lines >= MAX_FINDINGS && findings.is_empty() {
        findings.push(format!(
            "more than {MAX_FINDINGS} values are NULL where they must not be: nothing else was found in time"
        ));
    }
    Ok(())
}

/// Every table, and whether it does without foreign collations.
fn tables(connection: &mut Connection, foreign: &BTreeSet<String>) -> Result<Vec<(String, bool)>, Trouble> {
    let sql = "SELECT own.name, part.coll FROM main.sqlite_schema AS own \
         LEFT JOIN pragma_index_list(own.name) AS list LEFT JOIN pragma_index_xinfo(list.name) AS part \
         WHERE own.type = 'table' AND own.rootpage > 0";
    let mut tables = BTreeMap::new();
    connection.rows(sql.to_owned(), None, |row| {
        let collation: Option<String> = row.try_get(1)?;
        let native = collation.is_none_or(|collation| !foreign.contains(&collation));
        *tables.entry(row.try_get::<String, _>(0)?).or_insert(true) &= native;
        Ok(())
    })?;
    Ok(tables.into_iter().collect())
}
