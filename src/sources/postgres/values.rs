//! The values of sequences and the bytes of large objects: neither is in what pg_dump writes before and after the data.
//! Both exist by then: pg_dump makes sequences, and it or large_objects.rs makes large objects.

use std::collections::VecDeque;

use bytes::Bytes;
use sqlx::Row as _;

use crate::domain::contents::PostgresSequenceFacts;
use crate::sources::SourceError;

use super::connect::ServerTrouble;
use super::facts::ObjectSum;
use super::layout::{Part, literal, quoted};
use super::pieces::{Filled, MAX_MEMBER_BYTES};
use super::session::Session;
use super::tables::Sequence;

/// Sequences in one statement.
const SEQUENCE_BATCH: usize = 100;
/// Large objects whose beginnings are fetched at once.
const OBJECT_BATCH: usize = 32;
/// How much of a large object one statement holds: as hexadecimal digits half a MiB.
const SLICE_BYTES: usize = 256 * 1024;

/// What each sequence says now. Locks are given back.
pub(super) async fn sequences(
    session: &mut Session,
    sequences: &[Sequence],
) -> Result<Vec<PostgresSequenceFacts>, ServerTrouble> {
    session.try_run("SAVEPOINT reading").await?;
    let names: Vec<(&str, &str)> = sequences.iter().map(|it| (it.schema.as_str(), it.name.as_str())).collect();
    let found = sequence_values(session, &names).await?;
    session.try_run("ROLLBACK TO SAVEPOINT reading; RELEASE SAVEPOINT reading").await?;
    Ok(found)
}

/// The same of sequences by schema and name, in their order.
pub(super) async fn sequence_values(
    session: &mut Session,
    names: &[(&str, &str)],
) -> Result<Vec<PostgresSequenceFacts>, ServerTrouble> {
    let mut found = Vec::with_capacity(names.len());
    for batch in names.chunks(SEQUENCE_BATCH) {
        let selects: Vec<String> = batch
            .iter()
            .enumerate()
            .map(|(at, (schema, name))| {
                format!("SELECT {at}::int8, last_value, is_called FROM {}", qualified(schema, name))
            })
            .collect();
        for row in session.try_rows(&format!("{} ORDER BY 1", selects.join(" UNION ALL "))).await? {
            let at = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
            if let Some((schema, name)) = batch.get(at) {
                let (last_value, is_called) = (row.try_get(1)?, row.try_get(2)?);
                let (schema, name) = ((*schema).to_owned(), (*name).to_owned());
                found.push(PostgresSequenceFacts { schema, name, last_value, is_called });
            }
        }
    }
    Ok(found)
}

/// sequences.sql: a `setval` for each sequence, one a line.
pub(super) fn set_sequences(sequences: &[PostgresSequenceFacts]) -> Vec<u8> {
    let mut out = String::new();
    for PostgresSequenceFacts { schema, name, last_value, is_called } in sequences {
        let name = literal(&qualified(schema, name));
        out.push_str(&format!("SELECT pg_catalog.setval({name}, {last_value}, {is_called});\n"));
    }
    out.into_bytes()
}

fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(name))
}

/// Reads the large objects one after the other, in slices.
pub(super) struct LargeObjects {
    /// Objects whose beginning is to be fetched, from here on.
    after: Option<u32>,
    /// Slices at hand: object, offset, bytes.
    slices: VecDeque<(u32, u64, Vec<u8>)>,
    /// Members so far.
    number: u32,
    /// Of what was read until now.
    sum: ObjectSum,
    finished: bool,
}

const NEXT_OBJECTS: &str = "SELECT own.oid::int8, lo_get(own.oid, 0, $SLICE) FROM (SELECT oid FROM pg_largeobject_metadata \
     WHERE oid > $AFTER ORDER BY oid LIMIT $BATCH) AS own ORDER BY own.oid";

impl LargeObjects {
    pub(super) fn new() -> Self {
        Self { after: None, slices: VecDeque::new(), number: 0, sum: ObjectSum::default(), finished: false }
    }

    /// The next member; `None` after the last.
    pub(super) async fn next(&mut self, session: &mut Session) -> Result<Option<Filled>, SourceError> {
        let mut statements = Vec::new();
        while statements.len() + 2 * SLICE_BYTES + 512 < MAX_MEMBER_BYTES {
            let Some((object, offset, bytes)) = self.next_slice(session).await? else { break };
            if bytes.is_empty() {
                continue;
            }
            statements.extend_from_slice(format!("SELECT pg_catalog.lo_put({object}, {offset}, '\\x").as_bytes());
            statements.extend_from_slice(hex::encode(&bytes).as_bytes());
            statements.extend_from_slice(b"');\n");
        }
        if statements.is_empty() {
            return Ok(None);
        }
        let part = Part::LargeObjects { number: self.number };
        self.number += 1;
        Ok(Some(Filled { part, bytes: Bytes::from(statements), counted: None }))
    }

    /// Reads them to their end, for their sum alone.
    pub(super) async fn sum_up(mut self, session: &mut Session) -> Result<ObjectSum, SourceError> {
        while self.next_slice(session).await?.is_some() {}
        Ok(self.sum)
    }

    /// Of what was read until now.
    pub(super) fn into_sum(self) -> ObjectSum {
        self.sum
    }

    /// The next slice: the first of an object, which may be empty, or another that has bytes.
    async fn next_slice(&mut self, session: &mut Session) -> Result<Option<(u32, u64, Vec<u8>)>, SourceError> {
        loop {
            if let Some((object, offset, bytes)) = self.slices.pop_front() {
                let end = offset + bytes.len() as u64;
                if offset == 0 {
                    self.sum.begin(object);
                }
                self.sum.add(&bytes);
                if bytes.len() == SLICE_BYTES {
                    let more = Self::slice(session, object, end).await?;
                    self.slices.push_front((object, end, more));
                }
                if bytes.is_empty() && offset > 0 {
                    continue;
                }
                return Ok(Some((object, offset, bytes)));
            }
            if self.finished {
                return Ok(None);
            }
            self.fetch(session).await?;
        }
    }

    async fn slice(session: &mut Session, object: u32, offset: u64) -> Result<Vec<u8>, SourceError> {
        let sql = format!("SELECT lo_get({object}, {offset}, {SLICE_BYTES})");
        session.value(&sql, &format!("cannot read large object {object}")).await
    }

    async fn fetch(&mut self, session: &mut Session) -> Result<(), SourceError> {
        let tried = "cannot read the large objects";
        let sql = NEXT_OBJECTS
            .replace("$SLICE", &SLICE_BYTES.to_string())
            .replace("$AFTER", &self.after.unwrap_or(0).to_string())
            .replace("$BATCH", &OBJECT_BATCH.to_string());
        let rows = session.rows(&sql, tried).await?;
        self.finished = rows.len() < OBJECT_BATCH;
        for row in rows {
            let read = || -> Result<_, sqlx::Error> { Ok((row.try_get::<i64, _>(0)?, row.try_get::<Vec<u8>, _>(1)?)) };
            let (object, bytes) = read().map_err(|error| session.wrong(tried, error))?;
            // The server's oids have 32 bits.
            let object = object as u32;
            self.after = Some(object);
            self.slices.push_back((object, 0, bytes));
        }
        Ok(())
    }
}
