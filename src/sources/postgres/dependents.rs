//! What cannot stand without something that the patterns leave out: views of it, foreign keys to it, rules, policies and
//! functions that name it. pg_dump writes all of that, and no server takes it back. Views it leaves out when told; of the
//! rest we note which entries of its archive they are, and a restore passes them over.
//!
//! The server's own record of dependencies is followed, so what the body of a function says in a string is not seen, as
//! the server does not see it either.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row as _;

use crate::sources::SourceError;

use super::session::Session;

/// Catalogs by their oids, which are the same in every version.
const PG_CLASS: u32 = 1259;
const PG_ATTRDEF: u32 = 2604;
const PG_CONSTRAINT: u32 = 2606;

/// Anything in a database: a row of a system catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Object {
    /// The catalog.
    pub(super) class: u32,
    /// The row.
    pub(super) oid: u32,
}

/// What goes along with what is left out.
#[derive(Debug, Default)]
pub(super) struct Dependents {
    /// Views and materialized views.
    pub(super) views: BTreeSet<u32>,
    /// Tables that cannot be made without it: they inherit from it, have a column of its type, a default from it …
    pub(super) tables: BTreeSet<u32>,
    /// Everything else, with words for it. What belongs to the left-out themselves is among them.
    pub(super) objects: BTreeMap<Object, String>,
}

/// Everything that depends on some relations, on what depends on them, and so on. A view is what its rule depends on.
const REACHED: &str = "WITH RECURSIVE reached (class, object) AS ( \
     SELECT 'pg_class'::regclass::oid, own.oid FROM (SELECT unnest($1)::oid) AS own (oid) \
     UNION SELECT next.class, next.object FROM reached CROSS JOIN LATERAL ( \
        SELECT d.classid, d.objid FROM pg_depend AS d WHERE d.refclassid = reached.class AND d.refobjid = reached.object \
        UNION ALL SELECT 'pg_class'::regclass::oid, r.ev_class FROM pg_rewrite AS r \
           WHERE reached.class = 'pg_rewrite'::regclass AND r.oid = reached.object AND r.ev_type = '1' \
        ) AS next (class, object)) \
     SELECT reached.class::int8 AS class, reached.object::int8 AS object, \
     coalesce(pg_describe_object(reached.class, reached.object, 0), 'something') AS shown, \
     coalesce(c.relkind::text, k.contype::text, '') AS kind, coalesce(own.oid, 0)::int8 AS relation, \
     coalesce(own.relkind::text, '') AS relation_kind FROM reached \
     LEFT JOIN pg_class c ON reached.class = 'pg_class'::regclass AND c.oid = reached.object \
     LEFT JOIN pg_attrdef a ON reached.class = 'pg_attrdef'::regclass AND a.oid = reached.object \
     LEFT JOIN pg_constraint k ON reached.class = 'pg_constraint'::regclass AND k.oid = reached.object \
     LEFT JOIN pg_class own ON own.oid = coalesce(c.oid, a.adrelid, nullif(k.conrelid, 0))";

/// Follows the dependencies on what is left out.
pub(super) async fn of_left_out(session: &mut Session, left_out: &BTreeSet<u32>) -> Result<Dependents, SourceError> {
    let mut dependents = Dependents::default();
    if left_out.is_empty() {
        return Ok(dependents);
    }
    let tried = "cannot look for what depends on the tables that are left out";
    let oids: Vec<u32> = left_out.iter().copied().collect();
    for row in session.rows_of(REACHED, &oids, tried).await? {
        let read = || -> Result<_, sqlx::Error> {
            // The server's oids have 32 bits.
            let oid = |name| row.try_get::<i64, _>(name).map(|number| number as u32);
            let kinds: (String, String) = (row.try_get("kind")?, row.try_get("relation_kind")?);
            Ok((oid("class")?, oid("object")?, oid("relation")?, kinds, row.try_get::<String, _>("shown")?))
        };
        let (class, oid, relation, (kind, relation_kind), shown) =
            read().map_err(|error| session.wrong(tried, error))?;
        if left_out.contains(&relation) {
            // It goes with its relation; its name may help somebody who looks at the archive, and nobody here.
            dependents.objects.insert(Object { class, oid }, shown);
            continue;
        }
        let of_table = matches!(relation_kind.as_str(), "r" | "p" | "f");
        match class {
            PG_CLASS if matches!(kind.as_str(), "v" | "m") => {
                dependents.views.insert(oid);
            }
            PG_CLASS | PG_ATTRDEF if of_table => {
                dependents.tables.insert(relation);
            }
            // Checks stand in the table's own statement; keys and foreign keys have theirs.
            PG_CONSTRAINT if of_table && matches!(kind.as_str(), "c" | "n") => {
                dependents.tables.insert(relation);
            }
            _ => {
                dependents.objects.insert(Object { class, oid }, shown);
            }
        }
    }
    Ok(dependents)
}

const FOREIGN_KEYS: &str = "SELECT oid::int8, conrelid::int8, confrelid::int8, \
     coalesce(pg_describe_object('pg_constraint'::regclass, oid, 0), conname::text) FROM pg_constraint \
     WHERE contype = 'f' AND convalidated AND confrelid = ANY (SELECT unnest($1)::oid)";

/// Foreign keys that no server would take back: rows that are copied refer to rows that are not. One that was never
/// validated is taken.
pub(super) async fn unfounded_keys(
    session: &mut Session,
    without_rows: &BTreeSet<u32>,
    with_rows: &BTreeSet<u32>,
) -> Result<BTreeMap<Object, String>, SourceError> {
    let mut found = BTreeMap::new();
    if without_rows.is_empty() {
        return Ok(found);
    }
    let tried = "cannot look for foreign keys to the tables whose rows are left out";
    let oids: Vec<u32> = without_rows.iter().copied().collect();
    for row in session.rows_of(FOREIGN_KEYS, &oids, tried).await? {
        let read = || -> Result<_, sqlx::Error> {
            Ok((row.try_get::<i64, _>(0)? as u32, row.try_get::<i64, _>(1)? as u32, row.try_get::<String, _>(3)?))
        };
        let (oid, from, shown) = read().map_err(|error| session.wrong(tried, error))?;
        if with_rows.contains(&from) {
            found.insert(Object { class: PG_CONSTRAINT, oid }, shown);
        }
    }
    Ok(found)
}

/// An entry of an archive that is not to be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unrestorable {
    /// The archive's number of it.
    pub(super) entry: u32,
    /// What it makes; `None` for a comment or a right on something that is left out itself.
    pub(super) object: Option<Object>,
}

/// Those entries of an archive, as `pg_restore --list --verbose` shows it, that make one of some objects, or say
/// something of one.
pub(super) fn unrestorable(list: &str, objects: &BTreeMap<Object, String>) -> Vec<Unrestorable> {
    let mut found: Vec<Unrestorable> = Vec::new();
    let mut numbers = BTreeSet::new();
    // The last entry, if it has no oid of its own: it belongs to the one that it depends on, which stands before it.
    let mut appendix: Option<u32> = None;
    for line in list.lines() {
        if let (Some(depends), Some(entry)) = (line.strip_prefix(";\tdepends on:"), appendix) {
            let mut on = depends.split_whitespace().filter_map(|number| number.parse().ok());
            if on.any(|number| numbers.contains(&number)) {
                numbers.insert(entry);
                found.push(Unrestorable { entry, object: None });
            }
        }
        // 215; 1259 16389 TABLE public users postgres
        let Some((entry, rest)) = line.split_once("; ") else { continue };
        let mut words = rest.split(' ').map(str::parse);
        let (Ok(entry), Some(Ok(class)), Some(Ok(oid))) = (entry.parse(), words.next(), words.next()) else { continue };
        let object = Object { class, oid };
        appendix = (class == 0).then_some(entry);
        if objects.contains_key(&object) {
            numbers.insert(entry);
            found.push(Unrestorable { entry, object: Some(object) });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_with_what_is_said_of_them() {
        let list = ";\n; Selected TOC Entries:\n;\n\
            215; 1259 16389 TABLE public users postgres\n;\tdepends on: 6\n\
            3400; 0 0 COMMENT public TABLE users postgres\n;\tdepends on: 215\n\
            217; 1255 16400 FUNCTION public f() postgres\n;\tdepends on: 215 6\n\
            3401; 0 0 ACL public FUNCTION f() postgres\n;\tdepends on: 217\n\
            3300; 2606 16402 FK CONSTRAINT public orders fk postgres\n;\tdepends on: 215 3299\n\
            3402; 0 0 COMMENT public CONSTRAINT fk ON orders postgres\n;\tdepends on: 3300\n\
            3301; 2618 217 RULE public orders r postgres\n";
        let function = Object { class: 1255, oid: 16400 };
        let key = Object { class: 2606, oid: 16402 };
        let gone = Object { class: 2606, oid: 7 };
        let objects = BTreeMap::from([function, key, gone].map(|object| (object, String::new())));
        let found: Vec<(u32, Option<Object>)> =
            unrestorable(list, &objects).iter().map(|found| (found.entry, found.object)).collect();
        assert_eq!(found, [(217, Some(function)), (3401, None), (3300, Some(key)), (3402, None)]);
        assert!(unrestorable("", &objects).is_empty());
    }
}
