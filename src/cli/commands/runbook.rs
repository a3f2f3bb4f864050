//! `runbook`: what to type when the host is gone, as Markdown to print.

use crate::error::{Code, Error, Result};
use crate::evidence::runbook::{self, Extent};
use crate::operations::TOOL;
use crate::operations::runbook::{LOOK_WITHIN, ask, runbook_facts};
use crate::operations::vaults::Trusted;

use super::super::Exit;
use super::super::args::RunbookArgs;
use super::super::output::{print, print_json, say};
use super::super::session::{IdentitySource, Session};
use super::status::{Readers, write_whole};

pub(in super::super) fn runbook(session: Session, args: &RunbookArgs) -> Result<Exit> {
    let session = session.configured()?;
    let now = session.host.clock.now();
    let jobs = session.jobs(&args.jobs)?;
    // On the day that this is wanted the identity's drive may not be plugged in.
    let trusted = IdentitySource::of(&session.global).texts().unwrap_or_else(|error| {
        say(&format!("warning: {error}"));
        Trusted::default()
    });
    let flag = session.global.trust.as_deref();
    let answers = ask(&session.host, &session.settings, &jobs, (flag, &trusted), LOOK_WITHIN);
    let mut papers = Vec::new();
    for job in jobs {
        let answer = answers.get(&job.vault);
        let facts = answer.map(|answer| runbook_facts(&session.host, &session.settings, job, answer)).transpose()?;
        let facts = facts.flatten().ok_or_else(|| {
            Error::new(Code::ConfigInvalid, format!("job {} has no vault {}", job.name, job.vault))
                .with_hint("`lifeboat config check` says more")
        })?;
        if let Some(why) = &facts.silent {
            say(&format!(
                "warning: the vault of {} did not answer: this is what this host remembers ({why})",
                job.name
            ));
        }
        papers.push(facts);
    }
    if session.global.json && args.output.is_none() {
        print_json(&runbook::document(&papers, now, TOOL));
        return Ok(Exit::DONE);
    }
    let extent = if args.short { Extent::Restore } else { Extent::Everything };
    let text = match session.global.json {
        false => runbook::render(&papers, extent, now, TOOL),
        true => serde_json::to_string_pretty(&runbook::document(&papers, now, TOOL))
            .map_err(|cause| Error::new(Code::Internal, format!("the runbook cannot be written as JSON: {cause}")))?,
    };
    match &args.output {
        // Half a runbook would be found on the day that it is needed.
        Some(path) => write_whole(path, &text, Readers::Owner, "the runbook")?,
        None => print(&text),
    }
    Ok(Exit::DONE)
}
