//! `daemon`.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use tokio::signal::unix::{SignalKind, signal};

use crate::catalog::Catalog;
use crate::config::Settings;
use crate::daemon::board::Board;
use crate::daemon::engine::{Engine, Event, Orders};
use crate::daemon::herald::Herald;
use crate::daemon::http::{Answer, Answers, Status, listen};
use crate::daemon::names::Names;
use crate::daemon::outlook::Outlook;
use crate::daemon::page;
use crate::daemon::service::Service;
use crate::daemon::work::Verbs;
use crate::error::{Code, Error, Result};
use crate::operations::host::Host;
use crate::operations::state::StateDir;

use super::super::Exit;
use super::super::args::DaemonArgs;
use super::super::session::{IdentitySource, Session};
use super::schedule::wanted;

pub(in super::super) fn daemon(session: Session, args: &DaemonArgs) -> Result<Exit> {
    let settings = Settings::load(session.global.config.as_deref())?;
    let host = &session.host;
    let state = StateDir::open(&settings.state_dir)?;
    // Made and brought up to date before anything runs; each run opens it for itself.
    host.runtime.block_on(Catalog::open(&state.catalog()))?;
    let seed = blake3::derive_key("lifeboat 2026-11 daemon jitter", state.host_secret()?.to_hex().as_bytes());
    let board = Board::new(Arc::clone(&host.clock));
    let verbs = Verbs {
        runtime: host.runtime.clone(),
        clock: Arc::clone(&host.clock),
        identities: IdentitySource::of(&session.global).files,
    };
    let (address, file) = (settings.daemon.listen, settings.file.clone());
    let names = Names::new(&settings.daemon.names);
    let outlook = Outlook::new(
        host.runtime.clone(),
        Arc::clone(&host.clock),
        settings.clone(),
        IdentitySource::of(&session.global).files,
        board.clone(),
    );
    let herald = Herald::start(host.runtime.clone(), Arc::clone(&host.clock))?;
    let mut engine = Engine::new(Orders {
        clock: Arc::clone(&host.clock),
        settings,
        wanted: wanted(&session, &args.only),
        seed,
        work: Arc::new(verbs),
        board: board.clone(),
        herald,
    })?;
    watch_signals(host, &engine.sender())?;
    let listener = address
        .map(|address| listen(&host.runtime, address, names, answers(host, board, state, outlook)))
        .transpose()?;
    let place = listener.as_ref().map_or_else(|| "nowhere".to_owned(), |listener| listener.address.to_string());
    tracing::info!(config = %file.display(), listening = %place, "ready");
    let abandoned = engine.run(&Service::from_environment());
    for task in &abandoned {
        tracing::error!(job = %task.job, operation = %task.operation, "did not end in time; the next start takes it up");
    }
    tracing::info!("ended");
    Ok(Exit::DONE)
}

/// SIGTERM and SIGINT end it, SIGHUP has the config read again.
fn watch_signals(host: &Host, sender: &SyncSender<Event>) -> Result<()> {
    let failed = |cause| Error::new(Code::Internal, format!("signals cannot be heard: {cause}"));
    let _inside = host.runtime.enter();
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        let event = move || if kind == SignalKind::hangup() { Event::Reload } else { Event::Terminate };
        let mut signals = signal(kind).map_err(failed)?;
        let sender = sender.clone();
        host.runtime.spawn(async move {
            while signals.recv().await.is_some() {
                let sender = sender.clone();
                // The loop may be busy, and what waits for it must not hold the others up.
                let _ = tokio::task::spawn_blocking(move || sender.send(event()).is_ok()).await;
            }
        });
    }
    Ok(())
}

fn answers(host: &Host, board: Board, state: StateDir, outlook: Outlook) -> Answers {
    let runtime = host.runtime.clone();
    Arc::new(move |path| match path {
        "/healthz" => Some(match board.hangs_for() {
            None => Answer::text(Status::Ok, "ok\n"),
            Some(silence) => {
                Answer::text(Status::Unavailable, format!("the loop has not turned for {} s\n", silence.as_secs()))
            }
        }),
        "/readyz" => {
            let notice = board.notice();
            let catalog = runtime.block_on(Catalog::open(&state.catalog())).err().map(Error::from);
            let catalog = catalog.map(|error| format!("[{}]", error.code().name()));
            let parts = [("config", notice.config), ("state", notice.state), ("catalog", catalog)];
            let status =
                if parts.iter().all(|(_, trouble)| trouble.is_none()) { Status::Ok } else { Status::Unavailable };
            let line =
                |(name, trouble): &(&str, Option<String>)| format!("{name}: {}\n", trouble.as_deref().unwrap_or("ok"));
            Some(Answer::text(status, parts.iter().map(line).collect::<String>()))
        }
        "/metrics" => Some(match outlook.metrics() {
            Ok(body) => Answer {
                status: Status::Ok,
                content_type: "text/plain; version=0.0.4; charset=utf-8",
                policy: None,
                body: body.to_string(),
            },
            // What went wrong may name what is nobody's business; the log has it whole.
            Err(error) => {
                tracing::error!(code = error.code().name(), "no metrics: {error}");
                Answer::text(Status::Unavailable, format!("no metrics: [{}]\n", error.code().name()))
            }
        }),
        path => page::answer(&outlook, path),
    })
}
