//! `demo`.

use crate::error::Result;

use super::super::args::DemoArgs;
use super::super::session::Session;
use super::super::{Exit, demo};

pub(in super::super) fn demo(session: &Session, args: &DemoArgs) -> Result<Exit> {
    demo::run(&session.host, &session.global, args)?;
    Ok(Exit::DONE)
}
