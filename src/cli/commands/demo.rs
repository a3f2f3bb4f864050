//! `demo`.

use crate::error::{Code, Error, Result};

use super::super::Exit;
use super::super::args::DemoArgs;
use super::super::session::Session;

pub(in super::super) fn demo(_session: &Session, _args: &DemoArgs) -> Result<Exit> {
    Err(Error::new(Code::Usage, "the demo is being merged"))
}
