//! A restored database against the facts that were taken with its backup: every table is read once more, its rows
//! counted and summed, what belongs to tables is compared by name, sequences and large objects by what is in them.

mod values;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::TryStreamExt as _;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tokio::runtime::Handle;

use super::connect::{Access, ServerTrouble};
use super::facts::{BINARY_HEADER, RowSum};
use super::layout::{ListedTable, literal};
use super::load::said;
use super::pins::{Purpose, pin};
use super::tables::bare_condition;
use crate::domain::check::Check;
use crate::domain::contents::{PostgresFacts, PostgresTableFacts};
use crate::sources::SourceError;

/// Tables larger than this are read in ranges of so many pages, each by whoever is free.
const RANGE_PAGES: u32 = 16_384;
/// The first version that reads a range of pages without reading the others.
const RANGES_SINCE: i32 = 140_000;
/// The first version that lists `NOT NULL` among the constraints.
const NOT_NULL_SINCE: u32 = 180_000;
/// A check's text names this many of what is missing or too much.
const NAMED: usize = 5;
/// What stands in the place of a row after the last one.
const BINARY_END: [u8; 2] = [0xff, 0xff];
/// Every table, partitioned or foreign table and materialized view that is not the system's: what it is, how many pages it has,
/// and of an extension's table which rows are the user's.
const RELATIONS: &str = "SELECT c.oid::int8 AS oid, n.nspname::text AS schema, c.relname::text AS name, \
     c.relkind::text AS kind, (coalesce(pg_relation_size(c.oid), 0) / current_setting('block_size')::int)::int8 AS pages, \
     e.oid IS NOT NULL AS of_extension, e.extcondition[array_position(e.extconfig, c.oid)] AS condition \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     LEFT JOIN pg_depend x ON x.classid = 'pg_class'::regclass AND x.objid = c.oid AND x.objsubid = 0 \
        AND x.deptype = 'e' AND x.refclassid = 'pg_extension'::regclass \
     LEFT JOIN pg_extension e ON e.oid = x.refobjid \
     WHERE c.relkind IN ('r', 'p', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// What one reader is to read: which table of the facts, and which pages of it.
type Stretch = (usize, Option<(u32, Option<u32>)>);

/// A relation as it was restored.
struct Restored {
    oid: i64,
    /// Whether it holds rows of its own: a plain table.
    is_table: bool,
    pages: u32,
    of_extension: bool,
    /// Which of its rows were backed up, where not all are the user's.
    condition: Option<String>,
}

/// All of them, by schema and name.
type Relations = BTreeMap<(String, String), Restored>;

/// Compares the database with `facts` by `connections` connections at a time: one [`Check`] for every table, and one
/// each for tables that have rows and should not be there, indexes, constraints, extensions, sequences (where the facts
/// have them) and large objects. `None` where `stop` ended it early.
///
/// # Errors
/// When the server cannot be asked. A table that is missing or cannot be read is a check that did not pass.
pub fn verify(
    access: &Access,
    facts: &PostgresFacts,
    connections: u32,
    stop: impl Future<Output = ()>,
    runtime: &Handle,
) -> Result<Option<Vec<Check>>, SourceError> {
    let failed = |trouble: &ServerTrouble| SourceError::Server {
        server: access.address.to_string(),
        what: format!("comparing the database: {}", said(trouble)),
        hint: Some("see that the server runs and lets this role read every table".to_owned()),
        transient: trouble.state().is_none(),
    };
    runtime.block_on(async {
        tokio::select! {
            compared = async {
                let mut checks = compare(access, facts, connections).await.map_err(|trouble| failed(&trouble))?;
                checks.extend(values::compare(access, facts).await?);
                Ok(Some(checks))
            } => compared,
            // The readers and their connections go with what is dropped here.
            () = stop => Ok(None),
        }
    })
}

async fn compare(access: &Access, facts: &PostgresFacts, connections: u32) -> Result<Vec<Check>, ServerTrouble> {
    let mut connection = connect(access).await?;
    let version: i32 = sqlx::query_scalar("SELECT pg_catalog.current_setting('server_version_num')::int")
        .fetch_one(&mut connection)
        .await?;
    let relations = relations(&mut connection).await?;
    let mut checks = tables(access, facts, &relations, version, connections).await?;
    checks.push(surplus_tables(&mut connection, facts, &relations).await?);
    // What belongs to an extension is the extension's to make, as it was at the source.
    let own: Vec<i64> = relations.values().filter(|it| !it.of_extension).map(|it| it.oid).collect();
    checks.push(sets("indexes", &facts.indexes, &indexes(&mut connection, &own).await?));
    let with_not_null = facts.server_version_number >= NOT_NULL_SINCE;
    checks.push(sets("constraints", &facts.constraints, &constraints(&mut connection, &own, with_not_null).await?));
    let extensions: Vec<String> =
        sqlx::query_scalar("SELECT extname::text FROM pg_catalog.pg_extension").fetch_all(&mut connection).await?;
    let names: Vec<String> = facts.extensions.iter().map(|(name, _)| name.clone()).collect();
    checks.push(sets("extensions", &names, &extensions));
    Ok(checks)
}

async fn connect(access: &Access) -> Result<PgConnection, ServerTrouble> {
    let mut connection = access.connect().await?;
    pin(&mut connection, Purpose::Read).await?;
    Ok(connection)
}

async fn relations(connection: &mut PgConnection) -> Result<Relations, ServerTrouble> {
    let mut found = Relations::new();
    for row in sqlx::query(RELATIONS).fetch_all(connection).await? {
        let restored = Restored {
            oid: row.try_get("oid")?,
            is_table: row.try_get::<String, _>("kind")? == "r",
            pages: u32::try_from(row.try_get::<i64, _>("pages")?).unwrap_or(u32::MAX),
            of_extension: row.try_get("of_extension")?,
            condition: row
                .try_get::<Option<String>, _>("condition")?
                .filter(|text| !text.is_empty())
                .map(|text| bare_condition(&text)),
        };
        found.insert((row.try_get("schema")?, row.try_get("name")?), restored);
    }
    Ok(found)
}

async fn tables(
    access: &Access,
    facts: &PostgresFacts,
    relations: &Relations,
    version: i32,
    connections: u32,
) -> Result<Vec<Check>, ServerTrouble> {
    let restored = |table: &PostgresTableFacts| {
        relations.get(&(table.schema.clone(), table.name.clone())).filter(|restored| restored.is_table)
    };
    let mut order: Vec<(usize, u32)> =
        facts.tables.iter().enumerate().filter_map(|(at, table)| Some((at, restored(table)?.pages))).collect();
    order.sort_by_key(|(at, pages)| (std::cmp::Reverse(*pages), *at));
    let stretches = order.into_iter().flat_map(|(at, pages)| {
        let in_ranges = version >= RANGES_SINCE && pages > RANGE_PAGES;
        let ranges = if in_ranges { pages.div_ceil(RANGE_PAGES) } else { 1 };
        (0..ranges).map(move |range| {
            let first = range * RANGE_PAGES;
            let next = (range + 1 < ranges).then(|| first + RANGE_PAGES);
            (at, in_ranges.then_some((first, next)))
        })
    });
    let queue: Arc<Mutex<VecDeque<Stretch>>> = Arc::new(Mutex::new(stretches.collect()));
    let wanted =
        |table| Wanted { table: listed(table), condition: restored(table).and_then(|it| it.condition.clone()) };
    let wanted: Arc<Vec<Wanted>> = Arc::new(facts.tables.iter().map(wanted).collect());
    let encoding: Arc<str> = facts.encoding.as_str().into();
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..connections.max(1) {
        let (access, queue) = (access.clone(), Arc::clone(&queue));
        let (wanted, encoding) = (Arc::clone(&wanted), Arc::clone(&encoding));
        readers.spawn(async move { read_all(&access, &queue, &wanted, &encoding).await });
    }
    let mut found: BTreeMap<usize, Result<RowSum, String>> = BTreeMap::new();
    while let Some(ended) = readers.join_next().await {
        // A panic is a bug of ours and goes on here.
        let sums = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        for (at, sum) in sums {
            let known = found.entry(at).or_insert_with(|| Ok(RowSum::default()));
            match (known, sum) {
                (Ok(known), Ok(sum)) => known.merge(&sum),
                (known, Err(what)) => *known = Err(what),
                (Err(_), Ok(_)) => {}
            }
        }
    }
    let checks = facts.tables.iter().enumerate().map(|(at, table)| {
        let name = format!("table {}.{}", table.schema, table.name);
        let expected = format!("{} rows, sum {}", table.rows, table.checksum);
        match found.get(&at) {
            None => Check::equal(name, expected, "missing"),
            Some(Err(what)) => Check::equal(name, expected, what),
            Some(Ok(sum)) => Check::equal(name, expected, format!("{} rows, sum {}", sum.rows, sum.hex())),
        }
    });
    Ok(checks.collect())
}

/// A table that is to be read, and which of its rows.
struct Wanted {
    table: ListedTable,
    condition: Option<String>,
}

fn listed(table: &PostgresTableFacts) -> ListedTable {
    ListedTable {
        oid: 0,
        schema: table.schema.clone(),
        name: table.name.clone(),
        columns: table.columns.clone(),
        binary: table.binary,
    }
}

/// Reads stretches until none is left. What a server refuses of one table is that table's; a connection that is gone is
/// everybody's.
async fn read_all(
    access: &Access,
    queue: &Mutex<VecDeque<Stretch>>,
    wanted: &[Wanted],
    encoding: &str,
) -> Result<Vec<(usize, Result<RowSum, String>)>, ServerTrouble> {
    let mut connection = None;
    let mut sums = Vec::new();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((at, pages)) = next else { return Ok(sums) };
        let open = match &mut connection {
            Some(open) => open,
            none => none.insert(connect(access).await?),
        };
        match read(open, &wanted[at], pages, encoding).await {
            Ok(sum) => sums.push((at, Ok(sum))),
            Err(trouble) if trouble.state().is_some() => {
                sums.push((at, Err(format!("cannot be read: {}", said(&trouble)))));
                // The client may not have read the answer to its end.
                connection = None;
            }
            Err(trouble) => return Err(trouble),
        }
    }
}

async fn read(
    connection: &mut PgConnection,
    Wanted { table, condition }: &Wanted,
    pages: Option<(u32, Option<u32>)>,
    encoding: &str,
) -> Result<RowSum, ServerTrouble> {
    let statement = table.copy_out(pages, condition.as_deref(), encoding);
    if table.binary {
        let set = format!("SET client_encoding = {}", literal(encoding));
        sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut *connection).await?;
    }
    let mut rows = Rows { binary: table.binary, begun: false, carry: Vec::new(), sum: RowSum::default() };
    {
        let mut stream = connection.copy_out_raw(&statement).await?;
        while let Some(bytes) = stream.try_next().await? {
            rows.take(&bytes);
        }
    }
    if table.binary {
        sqlx::raw_sql("SET client_encoding = 'UTF8'").execute(connection).await?;
    }
    Ok(rows.sum)
}

/// Cuts what COPY gives into rows. Text: at newlines, wherever messages end. Binary: a row is a message, as the server
/// writes them; the header stands before the first.
struct Rows {
    binary: bool,
    begun: bool,
    carry: Vec<u8>,
    sum: RowSum,
}

impl Rows {
    fn take(&mut self, mut bytes: &[u8]) {
        if self.binary {
            if !std::mem::replace(&mut self.begun, true) {
                bytes = bytes.get(BINARY_HEADER.len()..).unwrap_or_default();
            }
            if !bytes.is_empty() && bytes != BINARY_END {
                self.sum.add(bytes);
            }
            return;
        }
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (row, rest) = (&bytes[..end], &bytes[end + 1..]);
            if self.carry.is_empty() {
                self.sum.add(row);
            } else {
                self.carry.extend_from_slice(row);
                self.sum.add(&self.carry);
                self.carry.clear();
            }
            bytes = rest;
        }
        self.carry.extend_from_slice(bytes);
    }
}

/// Tables that the backup has no rows of (they were excluded, or are not of the backup at all) must have none.
async fn surplus_tables(
    connection: &mut PgConnection,
    facts: &PostgresFacts,
    relations: &Relations,
) -> Result<Check, ServerTrouble> {
    let known: BTreeSet<(&str, &str)> = facts.tables.iter().map(|table| (&*table.schema, &*table.name)).collect();
    let mut full = Vec::new();
    for ((schema, name), restored) in relations {
        let is_expected = restored.of_extension || known.contains(&(schema.as_str(), name.as_str()));
        if is_expected || !restored.is_table || restored.pages == 0 {
            continue;
        }
        let table =
            ListedTable { oid: 0, schema: schema.clone(), name: name.clone(), columns: Vec::new(), binary: false };
        let rows = format!("SELECT EXISTS (SELECT FROM ONLY {})", table.qualified());
        if sqlx::query_scalar(AssertSqlSafe(rows)).fetch_one(&mut *connection).await? {
            full.push(table.shown());
        }
    }
    let actual = if full.is_empty() { "none".to_owned() } else { named(&full) };
    Ok(Check::equal("tables with rows that are not in the backup", "none", actual))
}

async fn indexes(connection: &mut PgConnection, of: &[i64]) -> Result<Vec<String>, ServerTrouble> {
    let sql = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_index i \
               JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE i.indisvalid AND i.indrelid = ANY (SELECT pg_catalog.unnest($1)::oid)";
    Ok(sqlx::query_scalar(sql).bind(of).fetch_all(connection).await?)
}

/// Without those that the server itself makes for partitions, under names of its own.
async fn constraints(
    connection: &mut PgConnection,
    of: &[i64],
    with_not_null: bool,
) -> Result<Vec<String>, ServerTrouble> {
    let kinds = if with_not_null { "" } else { " AND o.contype <> 'n'" };
    let sql = format!(
        "SELECT pg_catalog.format('%I.%I.%I', n.nspname, c.relname, o.conname) || \
         CASE WHEN o.convalidated THEN '' ELSE ' (not valid)' END FROM pg_catalog.pg_constraint o \
         JOIN pg_catalog.pg_class c ON c.oid = o.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE o.conrelid = ANY (SELECT pg_catalog.unnest($1)::oid) \
         AND NOT (o.contype = 'f' AND o.conparentid <> 0){kinds}"
    );
    Ok(sqlx::query_scalar(AssertSqlSafe(sql)).bind(of).fetch_all(connection).await?)
}

/// Names that must be the same on both sides.
fn sets(what: &str, expected: &[String], actual: &[String]) -> Check {
    let (wanted, found): (BTreeSet<&String>, BTreeSet<&String>) = (expected.iter().collect(), actual.iter().collect());
    let missing: Vec<String> = wanted.difference(&found).map(|name| (*name).clone()).collect();
    let surplus: Vec<String> = found.difference(&wanted).map(|name| (*name).clone()).collect();
    let mut said = Vec::new();
    if !missing.is_empty() {
        said.push(format!("missing: {}", named(&missing)));
    }
    if !surplus.is_empty() {
        said.push(format!("not at the source: {}", named(&surplus)));
    }
    let expected = format!("the source's {}", wanted.len());
    let actual = if said.is_empty() { expected.clone() } else { said.join("; ") };
    Check::equal(what, expected, actual)
}

fn named(names: &[String]) -> String {
    let first = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(rows: &[&[u8]]) -> RowSum {
        let mut sum = RowSum::default();
        rows.iter().for_each(|row| sum.add(row));
        sum
    }

    fn cut(binary: bool, messages: &[&[u8]]) -> RowSum {
        let mut rows = Rows { binary, begun: false, carry: Vec::new(), sum: RowSum::default() };
        messages.iter().for_each(|message| rows.take(message));
        rows.sum
    }

    proptest! {
        #[test]
        fn rows_are_the_same_however_the_messages_are_cut(
            rows in prop::collection::vec("[a-z]{0,6}", 0..8),
            at in any::<prop::sample::Index>(),
        ) {
            let text: String = rows.iter().flat_map(|row| [row.as_str(), "\n"]).collect();
            let (first, second) = text.as_bytes().split_at(if text.is_empty() { 0 } else { at.index(text.len()) });
            let rows: Vec<&[u8]> = rows.iter().map(String::as_bytes).collect();
            prop_assert_eq!(cut(false, &[first, second]), sum(&rows));
        }
    }

    #[test]
    fn order_is_nothing_and_number_is_something() {
        assert_eq!(sum(&[b"a", b"b"]), sum(&[b"b", b"a"]));
        assert_ne!(sum(&[b"a", b"a"]).checksum, 0);
        assert_ne!(sum(&[b"a", b"a"]), sum(&[b"a"]));
    }

    #[test]
    fn binary_rows_stand_behind_a_header() {
        let header = [7; BINARY_HEADER.len()];
        let first = [&header[..], b"one"].concat();
        assert_eq!(cut(true, &[&first, b"two", &BINARY_END]), sum(&[b"one", b"two"]));
        assert_eq!(cut(true, &[&header, &BINARY_END]), RowSum::default());
        assert_eq!(cut(true, &[&[&header[..], &BINARY_END].concat()]), RowSum::default());
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_is_named() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(sets("indexes", &names(&["a", "b"]), &names(&["b", "a"])).passed);
        let check = sets("indexes", &names(&["a", "b"]), &names(&["b", "c"]));
        assert!(!check.passed);
        assert_eq!(check.actual, "missing: a; not at the source: c");
        assert_eq!(named(&names(&["1", "2", "3", "4", "5", "6", "7"])), "1, 2, 3, 4, 5 and 2 more");
    }
}
