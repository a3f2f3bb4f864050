//! Which rows one connection fills in by itself, where the server then logs none of them.
//!
//! A server with `wal_level = minimal` logs nothing of a table that is filled in the transaction that emptied it. That
//! transaction is one connection's. So large tables are dealt out, each to one connection, until too few connections
//! have something to do; what is left then (the end of a table that is most of the database, and small tables) goes in
//! by all of them, and logged.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sources::postgres::layout::Part;
use crate::vault::reader::PlannedPiece;

/// What rows cost that are logged, against such that are not: COPY of 113 MB took PostgreSQL 15 1.5 s and 1.0 s of
/// processor time.
const LOGGED_COST: (usize, usize) = (3, 2);
/// A smaller table is not worth emptying: that makes a new file for it and for what belongs to it.
const MIN_ALONE_BYTES: u64 = 8 * 1024 * 1024;

/// Where in a table rows were: the range of pages, and which part of it.
type Position = (u32, u32);

/// Bytes of each table.
#[derive(Debug, Default)]
pub(super) struct Census(BTreeMap<u32, u64>);

/// Tables dealt out to lanes, each one a connection.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    shares: BTreeMap<u32, Share>,
    count: usize,
    /// Lanes that have something to do.
    busy: AtomicUsize,
    /// So few at work are not faster than all of them with a log.
    too_few: usize,
}

/// What of a table is a lane's.
#[derive(Debug)]
struct Share {
    lane: usize,
    /// Where the lane stopped, if it did.
    until: OnceLock<Position>,
}

impl Census {
    /// Counts a piece.
    pub(super) fn add(&mut self, piece: &PlannedPiece) {
        self.add_parts(&super::parts(piece), piece.segments.iter().map(|segment| segment.plain.bytes).sum());
    }

    fn add_parts(&mut self, parts: &[Part], bytes: u64) {
        if let Some((oid, _)) = place(parts) {
            *self.0.entry(oid).or_default() += bytes;
        }
    }

    /// Deals the large tables out to at most so many connections.
    pub(super) fn deal(self, jobs: usize) -> Lanes {
        let mut tables: Vec<(u32, u64)> = self.0.into_iter().filter(|(_, bytes)| *bytes >= MIN_ALONE_BYTES).collect();
        // The longest first, each to whoever is done first: never longer than 4/3 of the best that could be found
        // (Graham, "Bounds on multiprocessing timing anomalies", 1969).
        tables.sort_by_key(|(oid, bytes)| (std::cmp::Reverse(*bytes), *oid));
        let count = jobs.min(tables.len());
        let mut loads = vec![0; count];
        let mut shares = BTreeMap::new();
        for (oid, bytes) in tables {
            let lane = (0..count).min_by_key(|&lane| loads[lane]).unwrap_or(0);
            loads[lane] += bytes;
            shares.insert(oid, Share { lane, until: OnceLock::new() });
        }
        Lanes { shares, count, busy: AtomicUsize::new(count), too_few: jobs * LOGGED_COST.1 / LOGGED_COST.0 }
    }
}

impl Lanes {
    /// How many there are; 0 where nothing was dealt out.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Whether a lane takes a piece of these parts, now that it comes to it. What it does not take, it never will.
    pub(super) fn takes(&self, lane: usize, parts: &[Part]) -> bool {
        let Some((share, position)) = self.share(parts).filter(|(share, _)| share.lane == lane) else { return false };
        if self.busy.load(Ordering::Relaxed) <= self.too_few {
            share.until.get_or_init(|| position);
        }
        share.until.get().is_none()
    }

    /// A lane has nothing more to do.
    pub(super) fn done(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether no lane took a piece of these parts; to be asked when all are done.
    pub(super) fn left(&self, parts: &[Part]) -> bool {
        self.share(parts).is_none_or(|(share, position)| share.until.get().is_some_and(|until| position >= *until))
    }

    fn share(&self, parts: &[Part]) -> Option<(&Share, Position)> {
        let (oid, position) = place(parts)?;
        Some((self.shares.get(&oid)?, position))
    }
}

/// The table that a piece is about, if it is about one, and where its first rows were.
fn place(parts: &[Part]) -> Option<(u32, Position)> {
    let table = |part: &Part| match *part {
        Part::Rows { oid, first_page, part } => Some((oid, (first_page, part))),
        Part::CopyStatement { oid } => Some((oid, (0, 0))),
        _ => None,
    };
    let (oid, position) = table(parts.first()?)?;
    parts.iter().all(|part| table(part).is_some_and(|(other, _)| other == oid)).then_some((oid, position))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn rows(oid: u32, first_page: u32) -> Part {
        Part::Rows { oid, first_page, part: 0 }
    }

    fn dealt(tables: &[(u32, u64)], jobs: usize) -> Lanes {
        let mut census = Census::default();
        for &(oid, mib) in tables {
            census.add_parts(&[Part::CopyStatement { oid }, rows(oid, 0)], mib * MIB);
        }
        census.deal(jobs)
    }

    /// Which lane takes a place, if one does.
    fn taker(lanes: &Lanes, oid: u32, first_page: u32) -> Option<usize> {
        (0..lanes.count()).find(|&lane| lanes.takes(lane, &[rows(oid, first_page)]))
    }

    #[test]
    fn large_tables_are_dealt_out_and_nothing_else() {
        let lanes = dealt(&[(1, 40), (2, 30), (3, 10), (4, 5)], 2);
        assert_eq!(lanes.count(), 2);
        assert_eq!([1, 2, 3, 4].map(|oid| taker(&lanes, oid, 7)), [Some(0), Some(1), Some(1), None]);
        assert!(lanes.takes(0, &[Part::CopyStatement { oid: 1 }, rows(1, 0)]));
        let everybodys = [vec![Part::Sequences], vec![], vec![rows(1, 0), rows(2, 0)], vec![rows(4, 0)]];
        for parts in everybodys {
            assert!(lanes.left(&parts) && !lanes.takes(0, &parts) && !lanes.takes(1, &parts), "{parts:?}");
        }
        assert_eq!(dealt(&[(1, 7), (2, 7), (3, 7)], 2).count(), 0);
        assert_eq!(dealt(&[], 3).count(), 0);
    }

    #[test]
    fn each_piece_is_taken_once_wherever_a_lane_stops() {
        let lanes = dealt(&[(1, 80), (2, 20), (3, 10)], 2);
        let places: Vec<(u32, u32)> = (1..=3).flat_map(|oid| (0..30).map(move |page| (oid, page))).collect();
        let mut taken = Vec::new();
        for page in 0..30 {
            taken.extend((0..2).filter(|&lane| lanes.takes(lane, &[rows(2, page)])).map(|_| (2, page)));
        }
        for page in 0..30 {
            if page == 12 {
                lanes.done();
            }
            taken.extend((0..2).filter(|&lane| lanes.takes(lane, &[rows(1, page)])).map(|_| (1, page)));
        }
        // Its lane comes to this one when it is to stop already.
        for page in 0..30 {
            taken.extend((0..2).filter(|&lane| lanes.takes(lane, &[rows(3, page)])).map(|_| (3, page)));
        }
        assert_eq!(taken.len(), 30 + 12);
        let left: Vec<(u32, u32)> =
            places.iter().copied().filter(|&(oid, page)| lanes.left(&[rows(oid, page)])).collect();
        assert_eq!(left.len(), 18 + 30);
        assert!(places.iter().all(|place| taken.contains(place) != left.contains(place)));
    }

    #[test]
    fn few_lanes_work_on_only_where_all_connections_would_not_be_faster() {
        // More than two thirds of them are needed.
        for (tables, jobs, takes) in
            [(1, 1, true), (1, 2, false), (2, 2, true), (2, 3, false), (3, 3, true), (2, 4, false), (3, 4, true)]
        {
            let tables: Vec<(u32, u64)> = (1..=tables).map(|oid| (oid, 50)).collect();
            assert_eq!(taker(&dealt(&tables, jobs), 1, 0).is_some(), takes, "{tables:?} {jobs}");
        }
    }
}
