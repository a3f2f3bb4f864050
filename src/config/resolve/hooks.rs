//! Programs of the user's, as lists of arguments.

use std::time::Duration;

use toml::Spanned;

use super::{Resolver, path};
use crate::config::file::HooksFile;
use crate::config::hooks::{DEFAULT_HOOK_TIMEOUT, HookSettings};
use crate::domain::quantity::exact_duration;

/// The longest that a hook may take: a backup waits for it.
const MAX_HOOK_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

impl Resolver<'_, '_> {
    /// The hooks of a job.
    pub(super) fn hooks(&mut self, image: HooksFile) -> HookSettings {
        let mut argv = |key: &str, command: Option<Spanned<Vec<String>>>| {
            command.map(|command| self.argv(key, command)).unwrap_or_default()
        };
        let before = argv("before", image.before);
        let after = argv("after", image.after);
        let on_failure = argv("on_failure", image.on_failure);
        let timeout = image.timeout.map_or(DEFAULT_HOOK_TIMEOUT, |text| {
            let timeout = self.positive_duration("timeout", &text);
            if timeout > MAX_HOOK_TIMEOUT {
                let most = exact_duration(MAX_HOOK_TIMEOUT);
                self.problems.at(text.span(), format!("`timeout` is at most {most}: a hung hook must fail"));
            }
            timeout
        });
        HookSettings { before, after, on_failure, timeout }
    }

    /// A program and its arguments. As a shell would have it: with a slash it is a path (here: from the config's folder).
    pub(super) fn argv(&mut self, key: &str, command: Spanned<Vec<String>>) -> Vec<String> {
        let at = command.span();
        let mut command = command.into_inner();
        match command.first_mut() {
            Some(program) if program.contains('/') => match path(program, self.base) {
                Ok(path) => *program = path.to_string_lossy().into_owned(),
                Err(message) => self.problems.at(at, message),
            },
            Some(program) if !program.is_empty() => {}
            _ => self.problems.at(at, format!("`{key}` names no program")),
        }
        command
    }
}
