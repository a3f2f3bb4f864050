//! Large objects as things that somebody owns and describes. Up to version 16 pg_dump writes that in front of the data;
//! from 17 on it takes it for data, which we do not have it write. So it is written here, by the same statements. Their
//! bytes are the business of values.rs.
//!
//! A statement is one line, whatever the names and comments in it hold: who runs them may stop behind any line. Those
//! about owners and rights are in a file of their own, for a restore that leaves these out.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::sources::SourceError;

use super::layout::{LARGE_OBJECT_OWNERS, LARGE_OBJECTS, literal, quoted};
use super::session::Session;

/// The first version of pg_dump that takes large objects for data, with all that belongs to them.
pub(super) const DATA_SINCE: u32 = 17;
/// Large objects that are asked for at once.
const BATCH: usize = 500;
/// What the owner may do as long as nobody says otherwise.
const OWNERS_RIGHTS: [&str; 2] = ["SELECT", "UPDATE"];

/// Where the statements lie.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) objects: PathBuf,
    pub(super) owners: PathBuf,
}

const NEXT: &str = "SELECT m.oid::int8 AS object, pg_get_userbyid(m.lomowner)::text AS owner, \
     (SELECT d.description FROM pg_description AS d WHERE d.classoid = 'pg_largeobject'::regclass \
        AND d.objoid = m.oid AND d.objsubid = 0) AS comment, \
     ARRAY(SELECT l.provider FROM pg_seclabel AS l WHERE l.classoid = 'pg_largeobject'::regclass AND l.objoid = m.oid \
        AND l.objsubid = 0 ORDER BY l.provider) AS providers, \
     ARRAY(SELECT l.label FROM pg_seclabel AS l WHERE l.classoid = 'pg_largeobject'::regclass AND l.objoid = m.oid \
        AND l.objsubid = 0 ORDER BY l.provider) AS labels, \
     m.lomacl IS NOT NULL AS has_rights, \
     ARRAY(SELECT CASE WHEN a.grantee = 0 THEN NULL ELSE pg_get_userbyid(a.grantee)::text END \
        FROM aclexplode(m.lomacl) WITH ORDINALITY AS a ORDER BY a.ordinality) AS grantees, \
     ARRAY(SELECT pg_get_userbyid(a.grantor)::text FROM aclexplode(m.lomacl) WITH ORDINALITY AS a ORDER BY a.ordinality) AS grantors, \
     ARRAY(SELECT a.privilege_type FROM aclexplode(m.lomacl) WITH ORDINALITY AS a ORDER BY a.ordinality) AS privileges, \
     ARRAY(SELECT a.is_grantable FROM aclexplode(m.lomacl) WITH ORDINALITY AS a ORDER BY a.ordinality) AS grantable \
     FROM pg_largeobject_metadata AS m WHERE m.oid > $AFTER ORDER BY m.oid LIMIT $BATCH";

/// Writes the statements into the private folder; nothing where there are no large objects.
pub(super) async fn describe(session: &mut Session, private: &Path) -> Result<Option<Described>, SourceError> {
    let tried = "cannot list the large objects";
    let described = Described { objects: private.join(LARGE_OBJECTS), owners: private.join(LARGE_OBJECT_OWNERS) };
    let mut files = None;
    let mut after = 0;
    loop {
        let sql = NEXT.replace("$AFTER", &after.to_string()).replace("$BATCH", &BATCH.to_string());
        let rows = session.rows(&sql, tried).await?;
        for row in &rows {
            let object = Object::of(row).map_err(|error| session.wrong(tried, error))?;
            after = object.oid;
            let (objects, owners) = match &mut files {
                Some(files) => files,
                none => none.insert((create(&described.objects)?, create(&described.owners)?)),
            };
            append(objects, &described.objects, &object.made())?;
            append(owners, &described.owners, &object.owned())?;
        }
        if rows.len() < BATCH {
            break;
        }
    }
    let Some((mut objects, mut owners)) = files else { return Ok(None) };
    objects.flush().map_err(|cause| refused(&described.objects, cause))?;
    owners.flush().map_err(|cause| refused(&described.owners, cause))?;
    Ok(Some(described))
}

fn create(path: &Path) -> Result<BufWriter<File>, SourceError> {
    // An attempt that is begun anew writes it once more.
    File::create(path).map(BufWriter::new).map_err(|cause| refused(path, cause))
}

fn append(file: &mut BufWriter<File>, path: &Path, statements: &[String]) -> Result<(), SourceError> {
    statements.iter().try_for_each(|statement| writeln!(file, "{statement};")).map_err(|cause| refused(path, cause))
}

fn refused(path: &Path, cause: io::Error) -> SourceError {
    SourceError::io("write", path.display().to_string(), cause)
}

#[derive(Debug, Default)]
struct Object {
    oid: u32,
    owner: String,
    comment: Option<String>,
    /// Provider and label.
    labels: Vec<(String, String)>,
    /// In the server's order, in which whoever grants was granted that before; `None`: as for any new one.
    rights: Option<Vec<Right>>,
}

#[derive(Debug)]
struct Right {
    /// `None` for everybody.
    grantee: Option<String>,
    grantor: String,
    privilege: String,
    grantable: bool,
}

impl Object {
    fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        let providers: Vec<String> = row.try_get("providers")?;
        let labels: Vec<String> = row.try_get("labels")?;
        let grantees: Vec<Option<String>> = row.try_get("grantees")?;
        let grantors: Vec<String> = row.try_get("grantors")?;
        let privileges: Vec<String> = row.try_get("privileges")?;
        let grantable: Vec<bool> = row.try_get("grantable")?;
        let rights = grantees.into_iter().zip(grantors).zip(privileges).zip(grantable);
        let rights =
            rights.map(|(((grantee, grantor), privilege), grantable)| Right { grantee, grantor, privilege, grantable });
        Ok(Self {
            // The server's oids have 32 bits.
            oid: row.try_get::<i64, _>("object")? as u32,
            owner: row.try_get("owner")?,
            comment: row.try_get("comment")?,
            labels: providers.into_iter().zip(labels).collect(),
            rights: row.try_get::<bool, _>("has_rights")?.then(|| rights.collect()),
        })
    }

    /// What makes and describes it.
    fn made(&self) -> Vec<String> {
        let oid = self.oid;
        let mut statements = vec![format!("SELECT pg_catalog.lo_create({oid})")];
        statements
            .extend(self.comment.iter().map(|text| format!("COMMENT ON LARGE OBJECT {oid} IS {}", text_of(text))));
        statements.extend(self.labels.iter().map(|(provider, label)| {
            format!("SECURITY LABEL FOR {} ON LARGE OBJECT {oid} IS {}", name(provider), text_of(label))
        }));
        statements
    }

    /// What gives it to its owner, and says who else may do what with it.
    fn owned(&self) -> Vec<String> {
        let object = format!("LARGE OBJECT {}", self.oid);
        let mut statements = vec![format!("ALTER {object} OWNER TO {}", name(&self.owner))];
        let Some(rights) = &self.rights else { return statements };
        let is_owners = |right: &&Right| right.grantee.as_ref() == Some(&self.owner);
        let owners: Vec<&Right> = rights.iter().filter(is_owners).collect();
        let as_ever = owners.len() == OWNERS_RIGHTS.len()
            && OWNERS_RIGHTS.iter().all(|it| owners.iter().any(|right| right.privilege == *it && !right.grantable));
        if !as_ever {
            statements.push(format!("REVOKE ALL ON {object} FROM {}", name(&self.owner)));
        }
        for right in rights.iter().filter(|right| !(as_ever && is_owners(right))) {
            let to = right.grantee.as_ref().map_or_else(|| "PUBLIC".to_owned(), |role| name(role));
            let option = if right.grantable { " WITH GRANT OPTION" } else { "" };
            let grant = format!("GRANT {} ON {object} TO {to}{option}", right.privilege);
            if right.grantor == self.owner {
                statements.push(grant);
            } else {
                let grantor = name(&right.grantor);
                statements.push(format!("SET SESSION AUTHORIZATION {grantor}; {grant}; RESET SESSION AUTHORIZATION"));
            }
        }
        statements
    }
}

/// A string literal on one line.
fn text_of(text: &str) -> String {
    if !text.contains(['\n', '\r']) {
        return literal(text);
    }
    let escaped = text.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n").replace('\r', "\\r");
    format!("E'{escaped}'")
}

/// A quoted name on one line.
fn name(name: &str) -> String {
    if !name.contains(['\n', '\r']) {
        return quoted(name);
    }
    let escaped = name.replace('\\', "\\\\").replace('"', "\"\"").replace('\n', "\\000A").replace('\r', "\\000D");
    format!("U&\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(grantee: Option<&str>, grantor: &str, privilege: &str, grantable: bool) -> Right {
        Right { grantee: grantee.map(str::to_owned), grantor: grantor.into(), privilege: privilege.into(), grantable }
    }

    #[test]
    fn what_a_new_one_has_anyway_is_not_said() {
        let object = Object { oid: 7, owner: "o".into(), ..Object::default() };
        assert_eq!(object.made(), ["SELECT pg_catalog.lo_create(7)"]);
        assert_eq!(object.owned(), ["ALTER LARGE OBJECT 7 OWNER TO \"o\""]);
        let rights = vec![right(Some("o"), "o", "SELECT", false), right(Some("o"), "o", "UPDATE", false)];
        assert_eq!(Object { rights: Some(rights), ..object }.owned().len(), 1);
    }

    #[test]
    fn rights_are_given_in_their_order_by_whom_they_were() {
        let rights = vec![
            right(Some("o"), "o", "SELECT", false),
            right(Some("a\"b"), "o", "UPDATE", true),
            right(None, "a\"b", "UPDATE", false),
        ];
        let object = Object { oid: 7, owner: "o".into(), rights: Some(rights), ..Object::default() };
        assert_eq!(
            object.owned()[1..],
            [
                "REVOKE ALL ON LARGE OBJECT 7 FROM \"o\"",
                "GRANT SELECT ON LARGE OBJECT 7 TO \"o\"",
                "GRANT UPDATE ON LARGE OBJECT 7 TO \"a\"\"b\" WITH GRANT OPTION",
                "SET SESSION AUTHORIZATION \"a\"\"b\"; GRANT UPDATE ON LARGE OBJECT 7 TO PUBLIC; RESET SESSION AUTHORIZATION",
            ]
        );
        let locked = Object { oid: 7, owner: "o".into(), rights: Some(Vec::new()), ..Object::default() };
        assert_eq!(locked.owned()[1..], ["REVOKE ALL ON LARGE OBJECT 7 FROM \"o\""]);
    }

    #[test]
    fn a_statement_is_one_line() {
        let object = Object {
            oid: 7,
            owner: "two\nlines\\".into(),
            comment: Some("it's\r\n\\ one".into()),
            labels: vec![("selinux".into(), "a\nb".into())],
            rights: None,
        };
        assert_eq!(
            object.made()[1..],
            [
                "COMMENT ON LARGE OBJECT 7 IS E'it''s\\r\\n\\\\ one'",
                "SECURITY LABEL FOR \"selinux\" ON LARGE OBJECT 7 IS E'a\\nb'"
            ]
        );
        assert_eq!(object.owned(), ["ALTER LARGE OBJECT 7 OWNER TO U&\"two\\000Alines\\\\\""]);
    }
}
