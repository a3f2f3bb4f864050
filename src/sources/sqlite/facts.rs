//! What must be true of a database: its schema, and the rows and a checksum of each table.
//!
//! Every value counts by its actual storage class, as bytes: text that is not UTF-8, and integers in text columns, are
//! what they are. A database of UTF-16 gives its text as UTF-8, as SQLite converts it. A table's rowids count as well, because a copy of pages keeps them. Generated columns are not
//! evaluated. Virtual tables have no rows of their own; the tables that they keep their content in do.
//!
//! A row's hash is the first half of the BLAKE3 over its values, each with a byte for its class: 0 null; 1 integer and
//! 2 real, 8 bytes, little-endian; 3 text and 4 blob, a length of 8 bytes, little-endian, and the bytes. A table's
//! checksum is the sum of its rows' hashes, read as little-endian numbers, modulo 2^128.

use std::collections::BTreeSet;

use rusqlite::Row;
use rusqlite::types::ValueRef;

use super::Trouble;
use super::connection::Connection;
use crate::domain::contents::{RawText, SqliteFacts, TableFacts};
use crate::domain::ids::ContentHash;

/// What SQLite calls the rowid, where no column has taken the name.
const ROWID_NAMES: [&str; 3] = ["rowid", "_rowid_", "oid"];
/// A row is collected up to this size before it is hashed.
const ROW_BUFFER_BYTES: usize = 64 * 1024;

/// Reads the facts inside the connection's transaction.
pub(super) fn read(connection: &Connection, file: RawText) -> Result<SqliteFacts, Trouble> {
    let page_bytes = connection.value::<i64>("PRAGMA main.page_size")?;
    let pages = connection.value::<i64>("PRAGMA main.page_count")?;
    Ok(SqliteFacts {
        file,
        user_version: connection.value("PRAGMA main.user_version")?,
        schema: schema(connection)?,
        // Neither is ever negative, and a page at most 65,536 bytes.
        page_bytes: page_bytes as u32,
        pages: pages as u64,
        library_version: connection.value("SELECT sqlite_version()")?,
        tables: tables(connection)?,
    })
}

fn schema(connection: &Connection) -> Result<ContentHash, Trouble> {
    let mut rows = Vec::new();
    connection.rows("SELECT type, name, tbl_name, sql FROM main.sqlite_schema", None, |row| {
        let mut image = Vec::new();
        for column in 0..4 {
            encode(row.get_ref(column)?, &mut image, &mut |_| ());
        }
        rows.push(image);
        Ok(())
    })?;
    rows.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for row in &rows {
        hasher.update(row);
    }
    Ok(ContentHash(*hasher.finalize().as_bytes()))
}

fn tables(connection: &Connection) -> Result<Vec<TableFacts>, Trouble> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    let sql = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND rootpage > 0";
    connection.rows(sql, None, |row| {
        names.insert(row.get(0)?);
        Ok(())
    })?;
    let mut without_rowid: BTreeSet<String> = BTreeSet::new();
    let sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND wr";
    connection.rows(sql, None, |row| {
        without_rowid.insert(row.get(0)?);
        Ok(())
    })?;
    names
        .into_iter()
        .map(|name| {
            let columns = columns(connection, &name)?;
            let sql = scan(&name, &columns, without_rowid.contains(&name));
            let mut sum = TableSum::default();
            connection.rows(&sql, None, |row| sum.add(row))?;
            Ok(TableFacts { name, rows: sum.rows, checksum: format!("{:032x}", sum.checksum) })
        })
        .collect()
}

/// The columns that are stored.
fn columns(connection: &Connection, table: &str) -> Result<Vec<String>, Trouble> {
    let mut columns: Vec<String> = Vec::new();
    let sql = "SELECT name FROM pragma_table_xinfo(?1) WHERE hidden = 0 ORDER BY cid";
    connection.rows(sql, Some(table), |row| {
        columns.push(row.get(0)?);
        Ok(())
    })?;
    Ok(columns)
}

/// The statement that reads a table in its own order. Columns are qualified, because SQLite takes a quoted name that
/// it does not know for a string; `NOT INDEXED`, because an index may hold other values than the table.
fn scan(table: &str, columns: &[String], without_rowid: bool) -> String {
    let free = |name: &&&str| !columns.iter().any(|column| column.eq_ignore_ascii_case(name));
    let rowid = if without_rowid { None } else { ROWID_NAMES.iter().find(free) };
    let mut selected: Vec<String> = rowid.iter().map(|name| format!("t.{name}")).collect();
    selected.extend(columns.iter().map(|column| format!("t.{}", quoted(column))));
    format!("SELECT {} FROM main.{} AS t NOT INDEXED", selected.join(", "), quoted(table))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[derive(Default)]
struct TableSum {
    rows: u64,
    checksum: u128,
    buffer: Vec<u8>,
    hasher: blake3::Hasher,
}

impl TableSum {
    fn add(&mut self, row: &Row<'_>) -> Result<(), rusqlite::Error> {
        let Self { buffer, hasher, .. } = self;
        buffer.clear();
        let mut spilled = false;
        for column in 0..row.as_ref().column_count() {
            encode(row.get_ref(column)?, buffer, &mut |bytes| {
                hasher.update(bytes);
                spilled = true;
            });
        }
        // Short rows are hashed in one go: a hasher's state costs more than they do.
        let hash = if spilled {
            hasher.update(buffer);
            let hash = hasher.finalize();
            hasher.reset();
            hash
        } else {
            blake3::hash(buffer)
        };
        let mut half = [0; 16];
        half.copy_from_slice(&hash.as_bytes()[..16]);
        self.checksum = self.checksum.wrapping_add(u128::from_le_bytes(half));
        self.rows += 1;
        Ok(())
    }
}

/// Appends a value to `buffer`; hands on buffer and value to `spill` where they would become too large.
fn encode(value: ValueRef<'_>, buffer: &mut Vec<u8>, spill: &mut dyn FnMut(&[u8])) {
    let (class, bytes) = match value {
        ValueRef::Null => {
            buffer.push(0);
            return;
        }
        ValueRef::Integer(number) => {
            buffer.push(1);
            buffer.extend_from_slice(&number.to_le_bytes());
            return;
        }
        ValueRef::Real(number) => {
            buffer.push(2);
            buffer.extend_from_slice(&number.to_bits().to_le_bytes());
            return;
        }
        ValueRef::Text(bytes) => (3, bytes),
        ValueRef::Blob(bytes) => (4, bytes),
    };
    buffer.push(class);
    buffer.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    if buffer.len() + bytes.len() > ROW_BUFFER_BYTES {
        spill(buffer);
        buffer.clear();
        spill(bytes);
    } else {
        buffer.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_names_what_is_stored() {
        let columns = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(scan("t", &columns(&["a"]), false), r#"SELECT t.rowid, t."a" FROM main."t" AS t NOT INDEXED"#);
        assert_eq!(scan("t", &columns(&["a"]), true), r#"SELECT t."a" FROM main."t" AS t NOT INDEXED"#);
        assert_eq!(
            scan("o\"dd", &columns(&["RowID", "oid", "b\"c"]), false),
            r#"SELECT t._rowid_, t."RowID", t."oid", t."b""c" FROM main."o""dd" AS t NOT INDEXED"#
        );
        let all_taken = scan("t", &columns(&["rowid", "oid", "_rowid_"]), false);
        assert_eq!(all_taken, r#"SELECT t."rowid", t."oid", t."_rowid_" FROM main."t" AS t NOT INDEXED"#);
    }
}
