//! The command line: arguments, thin commands, output. It decides nothing that a library's user would miss.

pub mod args;
mod commands;
mod demo;
mod log;
mod output;
mod progress;
mod session;

use std::sync::Arc;
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use crate::clock::SystemClock;
use crate::error::{Code, Error, Kind, Result};
use crate::operations::host::Host;
use crate::operations::interrupt::Interrupt;

pub use log::set_up_tracing;

use args::{Cli, Command};
use output::{print_error, say};
use session::Session;

/// What a command that ran to its end has to say to scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit(u8);

impl Exit {
    const DONE: Self = Self(0);

    fn of(kind: Kind) -> Self {
        Self(kind.exit_code())
    }

    /// A code that is not one of ours: what monitoring plugins speak.
    fn code(code: u8) -> Self {
        Self(code)
    }

    /// The worse of two: done is best, then partial, then the higher code.
    fn worse(self, other: Self) -> Self {
        let rank = |exit: Self| match exit.0 {
            0 => 0,
            3 => 1,
            code => u16::from(code) + 2,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

/// Prints what clap says of a command line, with our code behind its first line.
pub fn print_usage_error(text: &str) {
    let text = text.trim_end();
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let code = Code::Usage.name();
    say(&if rest.is_empty() { format!("{first} [{code}]") } else { format!("{first} [{code}]\n{rest}") });
}

/// Runs a command and gives the process's exit code.
#[must_use]
pub fn run(cli: Cli) -> u8 {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            print_error(&Error::new(Code::Internal, format!("no threads to be had: {cause}")));
            return Kind::Failed.exit_code();
        }
    };
    let interrupt = Interrupt::default();
    let own_words = matches!(cli.command, Command::Daemon(_));
    watch_signals(&runtime, interrupt.clone(), own_words);
    let host = Host::bare(runtime.handle().clone(), Arc::new(SystemClock::default()), interrupt);
    // Verbs block; a thread of their own may do so, and a deep stack costs nothing.
    let worker = thread::Builder::new().name("verb".to_owned()).spawn(move || match dispatch(cli, host) {
        Ok(exit) => exit.0,
        Err(error) => {
            print_error(&error);
            error.kind().exit_code()
        }
    });
    let code = match worker.map(thread::JoinHandle::join) {
        Ok(Ok(code)) => code,
        Ok(Err(_)) => {
            print_error(&Error::new(Code::Internal, "lifeboat panicked; the message above says where"));
            Kind::Failed.exit_code()
        }
        Err(cause) => {
            print_error(&Error::new(Code::Internal, format!("no threads to be had: {cause}")));
            Kind::Failed.exit_code()
        }
    };
    runtime.shutdown_background();
    code
}

/// The first signal asks the verb to end in good order, the second ends the process at once: that is safe too.
fn watch_signals(runtime: &tokio::runtime::Runtime, interrupt: Interrupt, own_words: bool) {
    runtime.spawn(async move {
        let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
            return;
        };
        for wave in 0.. {
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
            if wave > 0 {
                std::process::exit(Kind::Interrupted.exit_code().into());
            }
            // The daemon's log says it.
            if !own_words {
                say("interrupted: ending in good order; once more to stop at once");
            }
            interrupt.raise();
        }
    });
}

fn dispatch(cli: Cli, host: Host) -> Result<Exit> {
    let session = Session { global: cli.global, host };
    match cli.command {
        Command::Init(args) => commands::init::init(session, &args),
        Command::Demo(args) => commands::demo::demo(&session, &args),
        Command::Config(command) => commands::config::config(&session, &command),
        Command::Doctor(args) => commands::doctor::doctor(session, &args),
        Command::Backup(args) => commands::backup::backup(session, &args),
        Command::List(args) => commands::list::list(session, &args),
        Command::Show(args) => commands::list::show(session, &args),
        Command::Restore(args) => commands::restore::restore(session, &args),
        Command::Cat(args) => commands::restore::cat(session, &args),
        Command::Drill(args) => commands::drill::drill(session, &args),
        Command::Check(args) => commands::check::check(session, &args),
        Command::Prune(args) => commands::prune::prune(session, &args),
        Command::Copy(args) => commands::copy::copy(session, &args),
        Command::Quarantine(args) => commands::prune::quarantine(session, &args),
        Command::Status(args) => commands::status::status(session, &args),
        Command::Report(args) => commands::status::report(session, &args),
        Command::Runbook(args) => commands::runbook::runbook(session, &args),
        Command::Daemon(args) => commands::daemon::daemon(session, &args),
        Command::Schedule(command) => commands::schedule::schedule(&session, &command),
        Command::Notify(command) => commands::notify::notify(session, &command),
        Command::Key(command) => commands::key::key(&session, &command),
        Command::Host(command) => commands::host::host(session, &command),
        Command::Recipient(command) => commands::recipient::recipient(session, &command),
        Command::Catalog(command) => commands::catalog::catalog(session, &command),
        Command::Completions { shell } => commands::manual::completions(shell),
        Command::Man { dir } => commands::manual::man(&dir, session.global.quiet),
        Command::ConfinedSql => commands::confined_sql(&session),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_exit_wins() {
        let partial = Exit::of(Kind::Partial);
        let failed = Exit::of(Kind::Failed);
        assert_eq!(Exit::DONE.worse(partial), partial);
        assert_eq!(partial.worse(failed), failed);
        assert_eq!(failed.worse(partial), failed);
        assert_eq!(failed.worse(Exit::of(Kind::DrillFailed)), Exit::of(Kind::DrillFailed));
    }
}
