//! `catalog rebuild`.

use serde_json::json;

use crate::error::Result;
use crate::operations::rebuild::rebuild;

use super::super::Exit;
use super::super::args::CatalogCommand;
use super::super::output::{counted, print_json, say};
use super::super::session::{Session, open_all};

pub(in super::super) fn catalog(session: Session, command: &CatalogCommand) -> Result<Exit> {
    let CatalogCommand::Rebuild = command;
    let session = session.configured()?;
    let mut vaults = Vec::new();
    for vault in open_all(&session)? {
        let rebuilt = rebuild(&session.host, &vault)?;
        for problem in &rebuilt.problems {
            say(&format!("warning: {problem}"));
        }
        if !session.global.quiet && !session.global.json {
            say(&format!(
                "catalog of vault {} rebuilt: {}, {}",
                vault.settings.name,
                counted(rebuilt.backups as u64, "backup"),
                counted(rebuilt.records as u64, "record")
            ));
        }
        vaults.push(json!({
            "vault": vault.settings.name,
            "id": vault.id,
            "backups": rebuilt.backups,
            "records": rebuilt.records,
            "problems": rebuilt.problems,
        }));
    }
    if session.global.json {
        print_json(&json!({ "schema_version": 1, "vaults": vaults }));
    }
    Ok(Exit::DONE)
}
