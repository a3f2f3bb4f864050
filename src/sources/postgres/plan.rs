//! Which pages of which table are one task, and the order of the tasks: the same tables give the same tasks, and a
//! range of pages in which nothing changed gives the same bytes.

use super::tables::{Storage, Table};

/// Pages of one task. Fewer find more that did not change; more cost fewer statements.
pub(super) const RANGE_PAGES: u32 = 128;
/// A table of at most this many pages shares its pieces with others.
const SMALL_PAGES: u64 = 32;
/// A group of small tables ends where the hash of an oid says so, on average after so many: a table that comes or
/// goes changes one group.
const GROUP_TABLES: u8 = 8;
const PAGE_BYTES: u64 = 8192;
/// The first major version that reads the pages of a range and no others.
const RANGES_SINCE: u32 = 140_000;

/// What one reader does in one go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// Some pages of a table, or all.
    Range {
        /// Which table, by its place in the list.
        table: usize,
        /// The first page.
        first: u32,
        /// Where it ends.
        end: RangeEnd,
    },
    /// Some small tables, whole.
    Group(Vec<usize>),
}

/// Where a range ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RangeEnd {
    /// Before this page.
    Before(u32),
    /// With the table.
    Open,
    /// There are no ranges: the whole table at once.
    Whole,
}

impl RangeEnd {
    /// As [`super::layout::ListedTable::copy_out`] takes it.
    pub(super) fn pages(self, first: u32) -> Option<(u32, Option<u32>)> {
        match self {
            Self::Before(next) => Some((first, Some(next))),
            Self::Open => Some((first, None)),
            Self::Whole => None,
        }
    }
}

/// The tasks: large tables first, the largest in front, then groups of small ones by oid.
pub(super) fn tasks(tables: &[Table], server_version_number: u32) -> Vec<Task> {
    let mut large: Vec<usize> = (0..tables.len()).filter(|&at| !is_small(&tables[at])).collect();
    large.sort_by_key(|&at| (std::cmp::Reverse(tables[at].bytes), tables[at].listed.oid));
    let mut tasks = Vec::new();
    for table in large {
        let whole = server_version_number < RANGES_SINCE
            || tables[table].storage != Storage::Heap
            || tables[table].listed.binary
            || tables[table].condition.is_some();
        // A table has at most 2^32 - 2 pages.
        let pages = u32::try_from(tables[table].bytes / PAGE_BYTES).unwrap_or(u32::MAX);
        if whole {
            tasks.push(Task::Range { table, first: 0, end: RangeEnd::Whole });
            continue;
        }
        let mut first = 0_u32;
        loop {
            let next = first.saturating_add(RANGE_PAGES);
            if next >= pages {
                tasks.push(Task::Range { table, first, end: RangeEnd::Open });
                break;
            }
            tasks.push(Task::Range { table, first, end: RangeEnd::Before(next) });
            first = next;
        }
    }
    let mut group = Vec::new();
    for (at, table) in tables.iter().enumerate().filter(|(_, table)| is_small(table)) {
        group.push(at);
        if ends_group(table.listed.oid) {
            tasks.push(Task::Group(std::mem::take(&mut group)));
        }
    }
    if !group.is_empty() {
        tasks.push(Task::Group(group));
    }
    tasks
}

fn is_small(table: &Table) -> bool {
    table.bytes <= SMALL_PAGES * PAGE_BYTES && !table.listed.binary
}

fn ends_group(oid: u32) -> bool {
    blake3::hash(&oid.to_le_bytes()).as_bytes()[0].is_multiple_of(GROUP_TABLES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::postgres::layout::ListedTable;

    fn table(oid: u32, pages: u64) -> Table {
        let listed = ListedTable { oid, schema: "s".into(), name: format!("t{oid}"), columns: vec![], binary: false };
        Table { listed, bytes: pages * PAGE_BYTES, storage: Storage::Heap, condition: None, locked: false }
    }

    #[test]
    fn large_tables_go_first_in_ranges_and_the_last_range_is_open() {
        let tables = [table(1, 0), table(2, 200), table(3, 300), table(4, 32)];
        let tasks = tasks(&tables, 150_000);
        let range = |table, first, end| Task::Range { table, first, end };
        assert_eq!(
            tasks[..5],
            [
                range(2, 0, RangeEnd::Before(128)),
                range(2, 128, RangeEnd::Before(256)),
                range(2, 256, RangeEnd::Open),
                range(1, 0, RangeEnd::Before(128)),
                range(1, 128, RangeEnd::Open),
            ]
        );
        let grouped: Vec<usize> = tasks[5..]
            .iter()
            .flat_map(|task| match task {
                Task::Group(tables) => tables.clone(),
                Task::Range { .. } => panic!("small tables come last"),
            })
            .collect();
        assert_eq!(grouped, [0, 3]);
    }

    #[test]
    fn old_servers_get_whole_tables() {
        assert_eq!(tasks(&[table(1, 500)], 130_000), [Task::Range { table: 0, first: 0, end: RangeEnd::Whole }]);
    }

    #[test]
    fn a_new_small_table_changes_one_group() {
        let before: Vec<Table> = (1..=200).map(|oid| table(oid, 1)).collect();
        let after: Vec<Table> = before.iter().filter(|table| table.listed.oid != 77).cloned().collect();
        let oids = |tables: &[Table]| -> Vec<Vec<u32>> {
            tasks(tables, 150_000)
                .into_iter()
                .map(|task| match task {
                    Task::Group(places) => places.into_iter().map(|at| tables[at].listed.oid).collect(),
                    Task::Range { .. } => panic!("all are small"),
                })
                .collect()
        };
        let (before, after) = (oids(&before), oids(&after));
        assert!(before.iter().filter(|group| !after.contains(group)).count() <= 2);
    }
}
