//! Tells the story, and types commands into this very program as a person would: what they print is what is shown.

use std::io::{PipeReader, Read};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use crate::error::{Code, Error, Kind, Result};
use crate::operations::host::Host;

use super::super::output::{is_coloured, print_styled, say_styled};

/// How long one command may take. The shop's take seconds; somebody's own data may be large.
const PATIENCE: Duration = Duration::from_secs(60 * 60);
/// More than any command here prints.
const MAX_OUTPUT_BYTES: u64 = 4 * 1024 * 1024;
/// Set for the person who runs the demo, not for the demo's own config.
const OWN_VARIABLES: &str = "LIFEBOAT_";
/// What stands before commands and what they print.
const MARGIN: &str = "    ";

/// Where the story goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    /// To stdout: it is the demo's data.
    Story,
    /// To stderr, because stdout is for one JSON document.
    Aside,
}

/// The demo's stage.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    host: &'a Host,
    /// This program.
    program: PathBuf,
    /// Where commands are typed.
    dir: PathBuf,
    voice: Voice,
    bold: bool,
}

impl<'a> Stage<'a> {
    /// A stage in a folder.
    ///
    /// # Errors
    /// When the system does not tell where this program is.
    pub(super) fn new(host: &'a Host, dir: PathBuf, voice: Voice) -> Result<Self> {
        let program = std::env::current_exe()
            .map_err(|cause| Error::new(Code::DemoFailed, format!("cannot find our own executable: {cause}")))?;
        let bold = match voice {
            Voice::Story => is_coloured(&std::io::stdout()),
            Voice::Aside => is_coloured(&std::io::stderr()),
        };
        Ok(Self { host, program, dir, voice, bold })
    }

    /// The program whose commands are typed.
    pub(super) fn program(&self) -> &std::path::Path {
        &self.program
    }

    /// A heading, with a line before and after it.
    pub(super) fn heading(&self, text: &str) {
        self.tell("");
        match self.bold {
            true => self.tell(&format!("\x1b[1m{text}\x1b[0m")),
            false => self.tell(text),
        }
        self.tell("");
    }

    /// Lines of the story; a newline at the end makes an empty line.
    pub(super) fn tell(&self, text: &str) {
        for line in text.split('\n') {
            match self.voice {
                Voice::Story => print_styled(line),
                Voice::Aside => say_styled(line),
            }
        }
    }

    /// What is not the story but shown in it: behind a margin.
    pub(super) fn show(&self, text: &str) {
        let lines = text.trim_end().lines();
        let shown: Vec<String> = lines.map(|line| format!("{MARGIN}{line}").trim_end().to_owned()).collect();
        if !shown.is_empty() {
            self.tell(&shown.join("\n"));
        }
    }

    /// A command line, as typed.
    pub(super) fn prompt(&self, line: &str) {
        match self.bold {
            true => self.show(&format!("\x1b[1m$ {line}\x1b[0m")),
            false => self.show(&format!("$ {line}")),
        }
    }

    /// Types a command of lifeboat, shows what it prints, and makes sure that it ends with this exit code; how many
    /// seconds it took.
    ///
    /// # Errors
    /// [`Code::DemoFailed`] where it ends otherwise.
    pub(super) fn type_in(&self, words: &[&str], expected: u8) -> Result<f64> {
        self.prompt(&format!("lifeboat {}", words.join(" ")));
        let started = self.host.clock.monotonic();
        let (status, output) = self.run(words, Errors::Shown)?;
        let took = (self.host.clock.monotonic() - started).as_secs_f64();
        self.show(&output);
        if expected != 0 {
            self.show(&format!("(exit code {})", status.code().unwrap_or(-1)));
        }
        self.expect(words, status, expected, "")?;
        Ok(took)
    }

    /// The JSON document of a command, which is not shown: how the demo finds out whether what it tells is true.
    ///
    /// # Errors
    /// [`Code::DemoFailed`] where it ends with another exit code, or prints something else.
    pub(super) fn ask(&self, words: &[&str], expected: u8) -> Result<Value> {
        let words = [words, &["--json"]].concat();
        let (status, output) = self.run(&words, Errors::Dropped)?;
        self.expect(&words, status, expected, &output)?;
        serde_json::from_str(&output).map_err(|cause| {
            unexpected(format!("`lifeboat {}` did not print one JSON document: {cause}", words.join(" ")))
        })
    }

    fn expect(&self, words: &[&str], status: ExitStatus, expected: u8, output: &str) -> Result<()> {
        let words = words.join(" ");
        self.host.check_interrupted()?;
        if status.code() == Some(i32::from(Kind::Interrupted.exit_code())) {
            return Err(Error::new(
                Code::Interrupted,
                format!("`lifeboat {words}` was interrupted, and the demo with it"),
            ));
        }
        if status.code() == Some(i32::from(expected)) {
            return Ok(());
        }
        let output = if output.is_empty() { String::new() } else { format!("; it printed: {}", output.trim_end()) };
        Err(unexpected(format!(
            "`lifeboat {words}` ended with {status}, where exit code {expected} was expected{output}"
        )))
    }

    fn run(&self, words: &[&str], errors: Errors) -> Result<(ExitStatus, String)> {
        let failed = |cause: std::io::Error| {
            Error::new(Code::DemoFailed, format!("cannot run {}: {cause}", self.program.display()))
        };
        self.host.check_interrupted()?;
        // One pipe for both, so that lines come in the order in which they were written.
        let (reader, writer) = std::io::pipe().map_err(failed)?;
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(OWN_VARIABLES.as_bytes()) {
                command.env_remove(name);
            }
        }
        command.args(words).current_dir(&self.dir).stdin(Stdio::null()).kill_on_drop(true);
        match errors {
            Errors::Shown => command.stderr(writer.try_clone().map_err(failed)?),
            Errors::Dropped => command.stderr(Stdio::null()),
        };
        command.stdout(writer);
        let listener = std::thread::spawn(move || read_all(reader));
        let status = self.host.runtime.block_on(async { tokio::time::timeout(PATIENCE, command.status()).await });
        // Our own ends of the pipe: it is at its end only when they are closed too.
        drop(command);
        let status = match status {
            Ok(status) => status.map_err(failed)?,
            Err(_) => {
                let minutes = PATIENCE.as_secs() / 60;
                return Err(unexpected(format!(
                    "`lifeboat {}` was still at work after {minutes} minutes",
                    words.join(" ")
                )));
            }
        };
        let output = match listener.join() {
            Ok(output) => output.map_err(failed)?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Ok((status, output))
    }
}

/// What becomes of a command's stderr.
enum Errors {
    Shown,
    Dropped,
}

fn read_all(reader: PipeReader) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    reader.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reality differs from the story.
pub(super) fn unexpected(what: impl Into<String>) -> Error {
    Error::new(Code::DemoFailed, what)
        .with_hint("the output above says what happened; if neither disk nor data are at fault, please report it")
}

/// Fails where reality differs from the story.
pub(super) fn make_sure(is_so: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if is_so { Ok(()) } else { Err(unexpected(otherwise())) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::operations::interrupt::Interrupt;

    #[test]
    fn what_ends_otherwise_than_told_fails_the_demo() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let interrupt = Interrupt::default();
        let host = Host::bare(runtime.handle().clone(), Arc::new(SystemClock::default()), interrupt.clone());
        let dir = tempfile::tempdir().unwrap();
        // The shell takes the part of the program: it ends and prints as it is told.
        let shell = PathBuf::from("/bin/sh");
        let stage = Stage { host: &host, program: shell, dir: dir.path().to_owned(), voice: Voice::Aside, bold: false };

        assert!(stage.type_in(&["-c", "exit 21"], 21).is_ok());
        for (script, code) in
            [("exit 20", Code::DemoFailed), ("kill $$", Code::DemoFailed), ("exit 130", Code::Interrupted)]
        {
            assert_eq!(stage.type_in(&["-c", script], 21).unwrap_err().code(), code, "{script}");
        }
        assert_eq!(stage.ask(&["-c", "echo talk >&2; echo '{\"a\": 1}'"], 0).unwrap()["a"], 1);
        assert_eq!(stage.ask(&["-c", "echo green"], 0).unwrap_err().code(), Code::DemoFailed);
        assert!(make_sure(true, String::new).is_ok() && make_sure(false, String::new).is_err());

        interrupt.raise();
        assert_eq!(stage.type_in(&["-c", "exit 0"], 0).unwrap_err().code(), Code::Interrupted);
    }
}
