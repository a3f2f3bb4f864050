//! What must be true of the restored database: rows and checksum a table, counted while the rows go by, and what the
//! catalogs say in the same snapshot.

use std::sync::{Arc, Mutex, PoisonError};

use sqlx::Row as _;

use crate::domain::contents::{LocaleProvider, PostgresFacts, PostgresTableFacts};
use crate::sources::SourceError;

use super::dependents::Object;
use super::layout::ListedTable;
use super::session::Session;
use super::tables::Catalog;

/// What a binary COPY begins with. No row does: it would have 20,551 columns.
pub(super) const BINARY_SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// What stands in front of the first row: the signature, flags, and the length of an extension.
pub(super) const BINARY_HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// Rows, and the sum of their hashes modulo 2^128: the order does not matter, and a row that stands twice counts twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowSum {
    /// How many.
    pub rows: u64,
    /// The sum of the first halves, little-endian, of their BLAKE3 hashes.
    pub checksum: u128,
}

impl RowSum {
    /// Adds one row: as COPY writes it, without its newline.
    pub fn add(&mut self, row: &[u8]) {
        self.checksum = self.checksum.wrapping_add(half(&blake3::hash(row)));
        self.rows += 1;
    }

    /// Adds rows in text format: each ends with a newline, and none holds one. False where the last does not end.
    #[must_use]
    pub fn add_text(&mut self, rows: &[u8]) -> bool {
        if !rows.ends_with(b"\n") {
            return false;
        }
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', rows) {
            self.add(&rows[start..end]);
            start = end + 1;
        }
        true
    }

    /// Adds whole rows in binary format, with or without what stands before the first and after the last. False where
    /// they are not what they should be.
    #[must_use]
    pub fn add_binary(&mut self, mut rows: &[u8]) -> bool {
        if rows.starts_with(BINARY_SIGNATURE) {
            let Some(rest) = rows.get(BINARY_HEADER.len()..) else { return false };
            rows = rest;
        }
        while !rows.is_empty() {
            match binary_row_bytes(rows) {
                // The end: a count of -1.
                Some(0) => return rows.len() == 2,
                Some(length) => {
                    self.add(&rows[..length]);
                    rows = &rows[length..];
                }
                None => return false,
            }
        }
        true
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.checksum = self.checksum.wrapping_add(other.checksum);
    }

    /// The checksum as facts have it.
    #[must_use]
    pub fn hex(&self) -> String {
        format!("{:032x}", self.checksum)
    }
}

fn half(hash: &blake3::Hash) -> u128 {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.as_bytes()[..16]);
    u128::from_le_bytes(half)
}

/// Large objects: how many, their bytes, and the sum of their hashes modulo 2^128, in whatever order they come. The
/// slices of one object come one behind the other.
#[derive(Debug, Default)]
pub(super) struct ObjectSum {
    objects: u64,
    bytes: u64,
    checksum: u128,
    open: Option<blake3::Hasher>,
}

impl ObjectSum {
    /// An object begins, and with it ends the one before.
    pub(super) fn begin(&mut self, object: u32) {
        self.end();
        self.objects += 1;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&object.to_le_bytes());
        self.open = Some(hasher);
    }

    /// The next bytes of the object that was begun.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.open {
            hasher.update(bytes);
            self.bytes += bytes.len() as u64;
        }
    }

    /// Their number and the sum of their sizes, and the checksum as facts have it.
    pub(super) fn finish(mut self) -> ((u64, u64), String) {
        self.end();
        ((self.objects, self.bytes), format!("{:032x}", self.checksum))
    }

    fn end(&mut self) {
        if let Some(hasher) = self.open.take() {
            self.checksum = self.checksum.wrapping_add(half(&hasher.finalize()));
        }
    }
}

/// How long the first row is: a count of fields, then each with its length, -1 for a null.
fn binary_row_bytes(rows: &[u8]) -> Option<usize> {
    let fields = i16::from_be_bytes([*rows.first()?, *rows.get(1)?]);
    if fields == -1 {
        return Some(0);
    }
    let mut at = 2_usize;
    for _ in 0..fields {
        let length = i32::from_be_bytes(rows.get(at..at + 4)?.try_into().ok()?);
        at += 4 + usize::try_from(length).unwrap_or(0);
    }
    (at <= rows.len()).then_some(at)
}

/// Where the threads that seal a table's rows add them up.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<RowSum>);

impl Tally {
    pub(super) fn merge(&self, sum: &RowSum) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).merge(sum);
    }

    fn sum(&self) -> RowSum {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The facts of tables, sorted by schema and name.
pub(super) fn of_tables<'a>(
    tables: impl Iterator<Item = (&'a ListedTable, &'a Arc<Tally>)>,
) -> Vec<PostgresTableFacts> {
    let mut facts: Vec<PostgresTableFacts> = tables
        .map(|(table, tally)| {
            let sum = tally.sum();
            PostgresTableFacts {
                schema: table.schema.clone(),
                name: table.name.clone(),
                columns: table.columns.clone(),
                binary: table.binary,
                rows: sum.rows,
                checksum: sum.hex(),
            }
        })
        .collect();
    facts.sort_by(|one, other| (&one.schema, &one.name).cmp(&(&other.schema, &other.name)));
    facts
}

const DATABASE: &str = "SELECT current_setting('server_version') AS version, \
     current_setting('server_version_num')::int4 AS number, datname::text AS name, \
     pg_encoding_to_char(encoding)::text AS encoding, datcollate::text AS collate, datctype::text AS ctype, \
     to_jsonb(pg_database) ->> 'datlocprovider' AS provider, \
     CASE WHEN has_database_privilege(oid, 'CONNECT') THEN pg_database_size(oid) ELSE 0 END AS bytes \
     FROM pg_database WHERE datname = current_database()";

const EXTENSIONS: &str = "SELECT extname::text, extversion::text FROM pg_extension ORDER BY extname COLLATE \"C\"";

/// Roles that something depends on, and the owners: of the server's first role no dependency is kept.
const ROLES: &str = "SELECT DISTINCT role.rolname::text FROM pg_roles AS role WHERE role.oid IN ( \
     SELECT refobjid FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND (dbid = (SELECT oid FROM pg_database \
        WHERE datname = current_database()) OR (classid = 'pg_database'::regclass AND objid = (SELECT oid \
        FROM pg_database WHERE datname = current_database()))) \
     UNION SELECT datdba FROM pg_database WHERE datname = current_database() \
     UNION SELECT relowner FROM pg_class WHERE oid >= 16384 UNION SELECT nspowner FROM pg_namespace WHERE oid >= 16384 \
     UNION SELECT proowner FROM pg_proc WHERE oid >= 16384 UNION SELECT typowner FROM pg_type WHERE oid >= 16384 \
     UNION SELECT lomowner FROM pg_largeobject_metadata)";

const INDEXES: &str = "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), 'pg_class'::regclass::int8, \
     c.oid::int8 FROM pg_index i \
     JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE i.indisvalid AND i.indrelid = ANY (SELECT unnest($1)::oid)";

/// Those that the server itself makes for partitions, under names of its own, are left out.
const CONSTRAINTS: &str = "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) || '.' || quote_ident(k.conname) \
     || CASE WHEN k.convalidated THEN '' ELSE ' (not valid)' END, 'pg_constraint'::regclass::int8, k.oid::int8 \
     FROM pg_constraint k \
     JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE k.conrelid = ANY (SELECT unnest($1)::oid) AND NOT (k.contype = 'f' AND k.conparentid <> 0)";

/// What the catalogs say; the tables' sums and what pg_dumpall could get at are still to be filled in.
pub(super) async fn of_database(leader: &mut Session, catalog: &Catalog) -> Result<PostgresFacts, SourceError> {
    let tried = "cannot read the catalogs";
    let database = leader.rows(DATABASE, tried).await?;
    let extensions = leader.rows(EXTENSIONS, tried).await?;
    let roles = leader.rows(ROLES, tried).await?;
    let indexes = leader.rows_of(INDEXES, &catalog.relations, tried).await?;
    let constraints = leader.rows_of(CONSTRAINTS, &catalog.relations, tried).await?;
    let names = |rows: &[sqlx::postgres::PgRow]| -> Result<Vec<String>, sqlx::Error> {
        let names: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
        names.map(|mut names| {
            names.sort();
            names
        })
    };
    // Of things that belong to tables: what is not restored must not be looked for.
    let restored = |rows: &[sqlx::postgres::PgRow]| -> Result<Vec<String>, sqlx::Error> {
        let mut names = Vec::with_capacity(rows.len());
        for row in rows {
            // The server's oids have 32 bits.
            let object = Object { class: row.try_get::<i64, _>(1)? as u32, oid: row.try_get::<i64, _>(2)? as u32 };
            if !catalog.unrestorable.contains_key(&object) {
                names.push(row.try_get(0)?);
            }
        }
        names.sort();
        Ok(names)
    };
    let read = || -> Result<PostgresFacts, sqlx::Error> {
        let row = database.first().ok_or(sqlx::Error::RowNotFound)?;
        Ok(PostgresFacts {
            // Debian adds its own: `15.18 (Debian 15.18-0+deb12u1)`.
            server_version: row
                .try_get::<String, _>("version")?
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned(),
            // The server's own number is positive.
            server_version_number: row.try_get::<i32, _>("number")? as u32,
            database: row.try_get("name")?,
            encoding: row.try_get("encoding")?,
            collate: row.try_get::<Option<String>, _>("collate")?.unwrap_or_default(),
            ctype: row.try_get::<Option<String>, _>("ctype")?.unwrap_or_default(),
            // Before 15 there is no choice.
            locale_provider: match row.try_get::<Option<String>, _>("provider")?.as_deref() {
                None | Some("c") => LocaleProvider::Libc,
                Some("i") => LocaleProvider::Icu,
                Some("b") => LocaleProvider::Builtin,
                Some(_) => LocaleProvider::Other,
            },
            size_bytes: u64::try_from(row.try_get::<i64, _>("bytes")?).unwrap_or(0),
            extensions: extensions
                .iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
                .collect::<Result<_, sqlx::Error>>()?,
            roles: names(&roles)?,
            role_passwords: false,
            tables: Vec::new(),
            large_objects: (0, 0),
            large_object_checksum: None,
            sequences: None,
            indexes: restored(&indexes)?,
            constraints: restored(&constraints)?,
        })
    };
    read().map_err(|error| leader.wrong(tried, error))
}
