//! Roles and tablespaces: which statements of `globals.sql` are run. Only roles that are missing are made; one that is
//! there keeps its rights, memberships and password. Tablespaces are never made: their folders are another machine's.

use std::collections::BTreeSet;

use super::statements::{Statement, name_at};

/// Whether a statement makes, or belongs to, a role that the server does not have yet.
pub(super) fn is_for_missing(statement: &Statement<'_>, existing: &BTreeSet<String>) -> bool {
    let missing = |name: Option<String>| name.is_some_and(|name| !existing.contains(&name));
    if statement.begins(&["CREATE", "ROLE"]) || statement.begins(&["ALTER", "ROLE"]) {
        return missing(name_at(statement, 2));
    }
    if statement.begins(&["COMMENT", "ON", "ROLE"]) {
        return missing(name_at(statement, 3));
    }
    if statement.begins(&["SECURITY", "LABEL", "FOR"]) {
        // SECURITY LABEL FOR provider ON ROLE name
        return statement.says("ROLE") && missing(name_at(statement, 6));
    }
    if is_of_parameter(statement) {
        let to = statement.words().iter().position(|word| word == "TO");
        let grantee = to.and_then(|to| name_at(statement, to + 1));
        return missing(grantee.filter(|name| name != "PUBLIC"));
    }
    // GRANT group TO member: what else is granted here is of tablespaces.
    statement.begins(&["GRANT"])
        && statement.words().get(2).is_some_and(|word| word == "TO")
        && missing(name_at(statement, 3))
}

/// Whether it says who granted a membership, as it does from 16 on.
pub(super) fn names_grantor(statement: &Statement<'_>) -> bool {
    statement.begins(&["GRANT"]) && statement.says("GRANTED")
}

/// Whether a statement lets a role set one of the server's parameters. Not every server has each of them.
pub(super) fn is_of_parameter(statement: &Statement<'_>) -> bool {
    statement.begins(&["GRANT"]) && statement.says("PARAMETER")
}

/// Settings of the session that the other statements are to be read under; not whose session it is.
pub(super) fn is_setting(statement: &Statement<'_>) -> bool {
    statement.begins(&["SET"]) && !statement.begins(&["SET", "SESSION", "AUTHORIZATION"])
}

/// The roles that the statements make.
pub(super) fn roles(statements: &[Statement<'_>]) -> BTreeSet<String> {
    statements.iter().filter(|it| it.begins(&["CREATE", "ROLE"])).filter_map(|it| name_at(it, 2)).collect()
}

/// The tablespaces of the source, besides the two that every server has.
pub(super) fn tablespaces(statements: &[Statement<'_>]) -> BTreeSet<String> {
    statements.iter().filter(|it| it.begins(&["CREATE", "TABLESPACE"])).filter_map(|it| name_at(it, 2)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::postgres::load::statements::statements;

    #[test]
    fn only_what_is_missing_is_made() {
        let script = "SET default_transaction_read_only = off;\n\
            CREATE ROLE app;\nALTER ROLE app WITH LOGIN PASSWORD 'SCRAM-SHA-256$4096:x;y';\n\
            CREATE ROLE \"Old One\";\nALTER ROLE \"Old One\" WITH SUPERUSER;\nALTER ROLE app SET search_path TO 'a';\n\
            CREATE TABLESPACE fast OWNER app LOCATION '/fast';\nGRANT ALL ON TABLESPACE fast TO app;\n\
            GRANT \"Old One\" TO app WITH ADMIN OPTION GRANTED BY postgres;\nGRANT app TO \"Old One\";\n\
            COMMENT ON ROLE app IS 'x';\nGRANT SET ON PARAMETER work_mem TO app;\n\
            GRANT ALL ON PARAMETER jit TO \"Old One\" WITH GRANT OPTION;\nGRANT SET ON PARAMETER jit TO PUBLIC;\n\
            SET SESSION AUTHORIZATION app;\n";
        let all = statements(script).unwrap();
        let existing = BTreeSet::from(["Old One".to_owned()]);
        let run: Vec<String> =
            all.iter().filter(|statement| is_for_missing(statement, &existing)).map(Statement::text).collect();
        assert_eq!(
            run,
            [
                "CREATE ROLE app",
                "ALTER ROLE app WITH LOGIN PASSWORD 'SCRAM-SHA-256$4096:x;y'",
                "ALTER ROLE app SET search_path TO 'a'",
                "GRANT \"Old One\" TO app WITH ADMIN OPTION GRANTED BY postgres",
                "COMMENT ON ROLE app IS 'x'",
                "GRANT SET ON PARAMETER work_mem TO app",
            ]
        );
        let granted = all.iter().find(|statement| names_grantor(statement)).unwrap();
        assert_eq!(granted.without_option("GRANTED"), "GRANT \"Old One\" TO app WITH ADMIN OPTION");
        assert_eq!(tablespaces(&all), BTreeSet::from(["fast".to_owned()]));
        assert_eq!(roles(&all), BTreeSet::from(["app".to_owned(), "Old One".to_owned()]));
        assert!(is_setting(&all[0]) && !is_setting(&all[1]));
        assert!(!all.iter().skip(1).any(is_setting));
    }
}
