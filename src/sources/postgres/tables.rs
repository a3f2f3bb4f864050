//! What there is to copy, asked of the catalogs inside the snapshot: tables with their columns and sizes, sequences,
//! what is left out and why, and what our role may not read. Takes no lock on anything but the catalogs.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::domain::contents::{Note, NoteClass, RawText};
use crate::sources::SourceError;

use super::PostgresOptions;
use super::dependents::{self, Object};
use super::layout::{ListedTable, matches, quoted};
use super::session::Session;
use super::trouble::wrong;

/// How many tables an error names.
const NAMED_TABLES: usize = 10;
/// A table whose TOAST is smaller has no value that could be too long for text.
const SUSPICIOUS_TOAST_BYTES: i64 = 4 * 1024 * 1024;
/// A row whose text could be longer is copied in binary: the server's limit is one byte less than 1 GiB.
const MAX_TEXT_ROW_BYTES: i64 = 900 * 1024 * 1024;

/// A table whose rows are copied.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) listed: ListedTable,
    /// The main fork's, when we asked.
    pub(super) bytes: u64,
    /// Whether its rows have places in pages.
    pub(super) storage: Storage,
    /// Of an extension's table, which rows are the user's.
    pub(super) condition: Option<String>,
    /// Whether the leader holds a lock on it.
    pub(super) locked: bool,
}

/// How a table lies on the server's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    /// PostgreSQL's own: a row is found by page and place.
    Heap,
    /// Another access method, of which nothing is known.
    Other,
}

/// A sequence.
#[derive(Debug, Clone)]
pub(super) struct Sequence {
    pub(super) schema: String,
    pub(super) name: String,
}

/// What the catalogs say.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    /// Sorted by oid.
    pub(super) tables: Vec<Table>,
    /// Sorted by oid.
    pub(super) sequences: Vec<Sequence>,
    /// Relations that pg_dump must leave out, as `"schema"."name"`.
    pub(super) excluded: Vec<String>,
    /// What cannot be restored without what is left out, with words for it.
    pub(super) unrestorable: BTreeMap<Object, String>,
    /// Every table, partitioned table, foreign table and materialized view that is in the backup and belongs to no extension.
    pub(super) relations: Vec<u32>,
    pub(super) notes: Vec<Note>,
}

const RELATIONS: &str = "SELECT c.oid::int8 AS oid, n.nspname::text AS schema, c.relname::text AS name, \
     c.relkind::text AS kind, c.relpersistence::text AS persistence, coalesce(am.amname::text, '') AS method, \
     coalesce(pg_relation_size(c.oid), 0) AS bytes, \
     CASE WHEN c.reltoastrelid = 0 THEN 0 ELSE coalesce(pg_relation_size(c.reltoastrelid), 0) END AS toast_bytes, \
     coalesce(has_schema_privilege(n.oid, 'USAGE'), true) AS may_enter, \
     coalesce(has_table_privilege(c.oid, 'SELECT'), true) OR (c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_attribute a \
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
        AND NOT coalesce(has_column_privilege(c.oid, a.attnum, 'SELECT'), true))) AS may_read, \
     c.relkind = 'r' AND row_security_active(c.oid) AS filtered, \
     e.extname::text AS extension, e.extcondition[array_position(e.extconfig, c.oid)] AS condition, \
     coalesce(c.oid = ANY (e.extconfig), false) AS config, \
     CASE WHEN c.relispartition THEN ARRAY(SELECT p.relid::oid::int8 FROM pg_partition_ancestors(c.oid) AS p (relid) \
        WHERE p.relid::oid <> c.oid) ELSE ARRAY[]::int8[] END AS ancestors, \
     (SELECT d.refobjid::int8 FROM pg_depend d WHERE c.relkind = 'S' AND d.classid = 'pg_class'::regclass \
        AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') LIMIT 1) AS owner \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am am ON am.oid = c.relam \
     LEFT JOIN pg_depend x ON x.classid = 'pg_class'::regclass AND x.objid = c.oid AND x.objsubid = 0 \
        AND x.deptype = 'e' AND x.refclassid = 'pg_extension'::regclass \
     LEFT JOIN pg_extension e ON e.oid = x.refobjid \
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't' \
     AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') \
     AND n.nspname !~ '^pg_(toast_)?temp_' ORDER BY c.oid";

const COLUMNS: &str = "SELECT attrelid::int8, attname::text, atttypid::int8 FROM pg_attribute \
     WHERE attrelid = ANY (SELECT unnest($1)::oid) AND attnum > 0 AND NOT attisdropped AND attgenerated = '' \
     ORDER BY attrelid, attnum";

/// `bytea`, whose text is twice as long, and `text`, `bpchar`, `varchar`: https://www.postgresql.org/docs/ `pg_type.dat`.
const BYTEA_OID: i64 = 17;
const TEXT_OIDS: [i64; 3] = [25, 1042, 1043];

struct Relation {
    oid: u32,
    schema: String,
    name: String,
    kind: String,
    persistence: String,
    method: String,
    bytes: i64,
    toast_bytes: i64,
    may_enter: bool,
    may_read: bool,
    filtered: bool,
    extension: Option<String>,
    condition: Option<String>,
    config: bool,
    ancestors: Vec<i64>,
    owner: Option<i64>,
}

impl Relation {
    fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            oid: oid(row.try_get("oid")?),
            schema: row.try_get("schema")?,
            name: row.try_get("name")?,
            kind: row.try_get("kind")?,
            persistence: row.try_get("persistence")?,
            method: row.try_get("method")?,
            bytes: row.try_get("bytes")?,
            toast_bytes: row.try_get::<i64, _>("toast_bytes")?,
            may_enter: row.try_get("may_enter")?,
            may_read: row.try_get("may_read")?,
            filtered: row.try_get("filtered")?,
            extension: row.try_get("extension")?,
            condition: row.try_get::<Option<String>, _>("condition")?.filter(|text| !text.is_empty()),
            config: row.try_get("config")?,
            ancestors: row.try_get("ancestors")?,
            owner: row.try_get("owner")?,
        })
    }

    fn shown(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    fn qualified(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }
}

/// An oid as the queries give it.
fn oid(number: i64) -> u32 {
    // The server's oids have 32 bits.
    number as u32
}

/// Where the server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It takes writes.
    Primary,
    /// It replays another's.
    Standby,
}

/// Asks the catalogs what there is, and refuses where our role could not read it all.
pub(super) async fn catalog(
    leader: &mut Session,
    options: &PostgresOptions,
    standing: Standing,
) -> Result<Catalog, SourceError> {
    let tried = "cannot list the tables";
    let rows = leader.rows(RELATIONS, tried).await?;
    let relations: Result<Vec<Relation>, _> = rows.iter().map(Relation::of).collect();
    let relations = relations.map_err(|error| leader.wrong(tried, error))?;
    let left_out = left_out(&relations, options);
    let dependents = dependents::of_left_out(leader, &left_out).await?;
    must_be_makeable(&relations, &dependents.tables, options)?;

    let mut catalog = Catalog { unrestorable: dependents.objects, ..Catalog::default() };
    let mut copied = Vec::new();
    // Noted last: what nobody asked for is told first.
    let mut as_told = Vec::new();
    let (mut with_rows, mut without_rows) = (BTreeSet::new(), BTreeSet::new());
    for relation in &relations {
        let hold_rows = relation.ancestors.iter().map(|&above| oid(above)).chain([relation.oid]);
        if left_out.contains(&relation.oid) {
            catalog.excluded.push(relation.qualified());
            if relation.kind != "S" {
                as_told.push(note(relation, "left out, as the config says"));
            }
            without_rows.extend(hold_rows);
            continue;
        }
        if dependents.views.contains(&relation.oid) {
            catalog.excluded.push(relation.qualified());
            catalog.notes.push(note(relation, "left out, because it shows what is left out"));
            continue;
        }
        if relation.extension.is_none() && matches!(relation.kind.as_str(), "r" | "p" | "m" | "f") {
            catalog.relations.push(relation.oid);
        }
        if relation.extension.is_some() && !relation.config {
            continue;
        }
        let unreadable = relation.persistence == "u" && standing == Standing::Standby;
        match relation.kind.as_str() {
            "r" | "S" if unreadable => {
                catalog.notes.push(note(relation, "unlogged, and a standby does not have what is in it"));
                without_rows.extend(hold_rows);
            }
            "S" => copied.push(relation),
            "f" => catalog.notes.push(note(relation, "a foreign table: its rows are another server's")),
            "r" if options.exclude_data.iter().any(|pattern| covers(pattern, relation, &relations)) => {
                as_told.push(note(relation, "its rows are left out, as the config says"));
                without_rows.extend(hold_rows);
            }
            "r" => {
                copied.push(relation);
                with_rows.extend(hold_rows);
            }
            _ => {}
        }
    }
    catalog.notes.extend(as_told);
    must_be_readable(&copied, options)?;
    catalog.unrestorable.extend(dependents::unfounded_keys(leader, &without_rows, &with_rows).await?);
    catalog.sequences = copied
        .iter()
        .filter(|relation| relation.kind == "S")
        .map(|relation| Sequence { schema: relation.schema.clone(), name: relation.name.clone() })
        .collect();
    let tables: Vec<&Relation> = copied.into_iter().filter(|relation| relation.kind == "r").collect();
    catalog.tables = with_columns(leader, &tables).await?;
    Ok(catalog)
}

fn note(relation: &Relation, detail: &str) -> Note {
    Note { class: NoteClass::Skipped, path: RawText::from(relation.shown().as_str()), detail: detail.to_owned() }
}

/// Which relations the patterns leave out. A partition goes with the tables that it is a part of; those of a
/// partition that is named stay. A sequence goes with the table that it belongs to.
fn left_out(relations: &[Relation], options: &PostgresOptions) -> BTreeSet<u32> {
    let any =
        |patterns: &[String], relation: &Relation| patterns.iter().any(|pattern| covers(pattern, relation, relations));
    let patterned = || relations.iter().filter(|relation| relation.kind != "S");
    let mut left_out: BTreeSet<u32> =
        patterned().filter(|relation| any(&options.exclude_tables, relation)).map(|relation| relation.oid).collect();
    if !options.include_tables.is_empty() {
        let wanted: BTreeSet<u32> = patterned()
            .filter(|relation| any(&options.include_tables, relation))
            .flat_map(|relation| relation.ancestors.iter().map(|&above| oid(above)).chain([relation.oid]))
            .collect();
        left_out.extend(patterned().map(|relation| relation.oid).filter(|oid| !wanted.contains(oid)));
    }
    let with_them: Vec<u32> = relations
        .iter()
        .filter(|relation| relation.kind == "S")
        .filter(|relation| relation.owner.is_some_and(|owner| left_out.contains(&oid(owner))))
        .map(|relation| relation.oid)
        .collect();
    left_out.extend(with_them);
    left_out
}

/// Whether a pattern means a relation, or one that it is a partition of.
fn covers(pattern: &str, relation: &Relation, relations: &[Relation]) -> bool {
    let above = relation.ancestors.iter().filter_map(|&above| {
        relations.binary_search_by_key(&oid(above), |relation| relation.oid).ok().map(|at| &relations[at])
    });
    above.chain([relation]).any(|relation| matches(pattern, &relation.schema, &relation.name))
}

/// Refuses patterns that leave out what a table cannot be made without.
fn must_be_makeable(
    relations: &[Relation],
    tables: &BTreeSet<u32>,
    options: &PostgresOptions,
) -> Result<(), SourceError> {
    let named: Vec<String> =
        relations.iter().filter(|relation| tables.contains(&relation.oid)).map(Relation::shown).collect();
    if named.is_empty() {
        return Ok(());
    }
    Err(wrong(
        &options.access.address,
        format!("{} cannot be made without what include_tables and exclude_tables leave out", some_of(&named)),
        Some(
            "leave these tables out as well; or keep what they inherit from, or have columns or defaults of, and leave \
             out its rows alone by exclude_data"
                .to_owned(),
        ),
    ))
}

/// Says all that the role lacks at once, before pg_dump stumbles over the first.
fn must_be_readable(copied: &[&Relation], options: &PostgresOptions) -> Result<(), SourceError> {
    let address = &options.access.address;
    let role = quoted(&address.role);
    let schemas: BTreeSet<&str> =
        copied.iter().filter(|relation| !relation.may_enter).map(|relation| relation.schema.as_str()).collect();
    if let Some(first) = schemas.first() {
        let named: Vec<&str> = schemas.iter().copied().collect();
        return Err(wrong(
            address,
            format!("role {} may not use the schemas {}", address.role, some_of(&named)),
            Some(format!("GRANT USAGE ON SCHEMA {} TO {role}, or GRANT pg_read_all_data TO {role}", quoted(first))),
        ));
    }
    let refused: Vec<&&Relation> = copied.iter().filter(|relation| !relation.may_read).collect();
    if let Some(first) = refused.first() {
        let named: Vec<String> = refused.iter().map(|relation| relation.shown()).collect();
        let kind = if first.kind == "S" { "SEQUENCE " } else { "" };
        return Err(wrong(
            address,
            format!("role {} may not read {}", address.role, some_of(&named)),
            Some(format!("GRANT SELECT ON {kind}{} TO {role}, or GRANT pg_read_all_data TO {role}", first.qualified())),
        ));
    }
    let filtered: Vec<String> =
        copied.iter().filter(|relation| relation.filtered).map(|relation| relation.shown()).collect();
    if !filtered.is_empty() {
        return Err(wrong(
            address,
            format!("row-level security would hide rows of {} from role {}", some_of(&filtered), address.role),
            Some(format!("ALTER ROLE {role} BYPASSRLS, or leave them out by exclude_data")),
        ));
    }
    Ok(())
}

/// An extension says which rows of its table are the user's as pg_dump puts it behind the table's name: `WHERE …`.
pub(super) fn bare_condition(text: &str) -> String {
    let text = text.trim();
    text.get(..5).filter(|word| word.eq_ignore_ascii_case("where")).map_or(text, |_| &text[5..]).to_owned()
}

fn some_of<T: AsRef<str>>(names: &[T]) -> String {
    let named: Vec<String> = names
        .iter()
        .take(NAMED_TABLES)
        .map(|name| {
            name.as_ref()
                .chars()
                .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
                .collect()
        })
        .collect();
    let rest = names.len().saturating_sub(NAMED_TABLES);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{}{more}", named.join(", "))
}

async fn with_columns(leader: &mut Session, relations: &[&Relation]) -> Result<Vec<Table>, SourceError> {
    let tried = "cannot list the columns";
    let oids: Vec<u32> = relations.iter().map(|relation| relation.oid).collect();
    let mut columns: BTreeMap<u32, Vec<(String, i64)>> = BTreeMap::new();
    for row in leader.rows_of(COLUMNS, &oids, tried).await? {
        let read = || -> Result<_, sqlx::Error> {
            Ok((oid(row.try_get::<i64, _>(0)?), row.try_get::<String, _>(1)?, row.try_get::<i64, _>(2)?))
        };
        let (table, name, kind) = read().map_err(|error| leader.wrong(tried, error))?;
        columns.entry(table).or_default().push((name, kind));
    }
    let mut tables = Vec::with_capacity(relations.len());
    for relation in relations {
        let columns = columns.remove(&relation.oid).unwrap_or_default();
        let mut listed = ListedTable {
            oid: relation.oid,
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            columns: columns.iter().map(|(name, _)| name.clone()).collect(),
            binary: false,
        };
        if relation.toast_bytes >= SUSPICIOUS_TOAST_BYTES {
            listed.binary = has_row_too_long(leader, &listed, &columns).await?;
        }
        tables.push(Table {
            listed,
            bytes: u64::try_from(relation.bytes).unwrap_or(0),
            storage: if relation.method == "heap" { Storage::Heap } else { Storage::Other },
            condition: relation.condition.as_deref().map(bare_condition),
            locked: false,
        });
    }
    Ok(tables)
}

/// Whether a row is too long for text COPY. The server finds the length of a long value in its row, without fetching it.
async fn has_row_too_long(
    leader: &mut Session,
    table: &ListedTable,
    columns: &[(String, i64)],
) -> Result<bool, SourceError> {
    let lengths: Vec<String> = columns
        .iter()
        .filter_map(|(name, kind)| match *kind {
            BYTEA_OID => Some(format!("coalesce(octet_length({}), 0)::int8 * 2", quoted(name))),
            kind if TEXT_OIDS.contains(&kind) => Some(format!("coalesce(octet_length({}), 0)::int8", quoted(name))),
            _ => None,
        })
        .collect();
    if lengths.is_empty() {
        return Ok(false);
    }
    let sql = format!(
        "SELECT EXISTS (SELECT FROM ONLY {} WHERE {} > {MAX_TEXT_ROW_BYTES})",
        table.qualified(),
        lengths.join(" + ")
    );
    let tried = format!("cannot look for long rows in {}", table.shown());
    // In a savepoint, so that the lock does not stay.
    leader.run("SAVEPOINT lengths", &tried).await?;
    let found = leader.value(&sql, &tried).await?;
    leader.run("ROLLBACK TO SAVEPOINT lengths; RELEASE SAVEPOINT lengths", &tried).await?;
    Ok(found)
}
