//! `completions` and `man`.

use std::path::Path;

use clap::CommandFactory;

use crate::error::{Code, Error, Result};

use super::super::Exit;
use super::super::args::Cli;
use super::super::output::say;

pub(in super::super) fn completions(shell: clap_complete::Shell) -> Result<Exit> {
    clap_complete::generate(shell, &mut Cli::command(), "lifeboat", &mut std::io::stdout());
    Ok(Exit::DONE)
}

pub(in super::super) fn man(dir: &Path, quiet: bool) -> Result<Exit> {
    std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir)).map_err(|cause| {
        Error::new(Code::RestoreFailed, format!("cannot write manual pages to {}: {cause}", dir.display()))
            .with_hint("name a folder that you may write into")
    })?;
    if !quiet {
        say(&format!("manual pages written; read one with: man {}", dir.join("lifeboat.1").display()));
    }
    Ok(Exit::DONE)
}
