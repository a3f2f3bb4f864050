//! Somebody at work: a thread with its own connection that keeps taking orders while backups run.

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;

use super::dice::Dice;
use super::{Scale, ShopError, database};
use crate::clock::Clock;

/// Between two orders.
const PACE: Duration = Duration::from_millis(5);
/// How long anyone waits for an order: far longer than the busiest machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Takes orders until it is stopped or dropped.
#[derive(Debug)]
pub(in crate::cli::demo) struct Writer {
    tally: Arc<Tally>,
    /// Dropped to say that it is time to stop.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<Result<(), ShopError>>>,
}

/// How far it is.
#[derive(Debug, Default)]
struct Tally {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    orders: u64,
    ended: bool,
}

impl Tally {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.moved.notify_all();
    }
}

impl Writer {
    /// Opens the database and starts.
    pub(super) fn start(path: &Path, scale: Scale, clock: Arc<dyn Clock>) -> Result<Self, ShopError> {
        let start_failed = |cause| ShopError::Io { verb: "start a writer of", path: path.to_owned(), cause };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(start_failed)?;
        let refused = {
            let path = path.to_owned();
            move |cause| ShopError::Database { path: path.clone(), cause }
        };
        let mut db =
            runtime.block_on(SqliteConnection::connect_with(&database::options(path))).map_err(refused.clone())?;

        let tally = Arc::new(Tally::default());
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("shop".to_owned())
            .spawn({
                let tally = Arc::clone(&tally);
                move || {
                    let mut dice = Dice::of("writer");
                    let mut result = Ok(());
                    while result.is_ok() && stopped.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout) {
                        let order = database::Order::thrown(&mut dice, scale);
                        result = runtime.block_on(database::take_order(&mut db, &order, clock.now()));
                        if result.is_ok() {
                            tally.change(|state| state.orders += 1);
                        }
                    }
                    let closed = runtime.block_on(db.close());
                    tally.change(|state| state.ended = true);
                    result.and(closed).map_err(refused)
                }
            })
            .map_err(start_failed)?;
        Ok(Self { tally, stop: Some(stop), thread: Some(thread) })
    }

    /// Waits until this many orders were taken in all.
    pub(in crate::cli::demo) fn wait_for_orders(&self, count: u64) -> Result<(), ShopError> {
        let (state, _) = self
            .tally
            .moved
            .wait_timeout_while(self.tally.state(), PATIENCE, |state| state.orders < count && !state.ended)
            .unwrap_or_else(PoisonError::into_inner);
        // Where it ended early, `stop` has the reason.
        if state.orders < count { Err(ShopError::WriterStuck { waited_seconds: PATIENCE.as_secs() }) } else { Ok(()) }
    }

    /// Orders that were taken so far.
    pub(in crate::cli::demo) fn orders(&self) -> u64 {
        self.tally.state().orders
    }

    /// Ends it: how many orders it took, or why it had ended before.
    pub(in crate::cli::demo) fn stop(mut self) -> Result<u64, ShopError> {
        self.end()?;
        Ok(self.orders())
    }

    fn end(&mut self) -> Result<(), ShopError> {
        self.stop = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            // A panic of ours is a panic.
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Nobody asked how it went; `stop` is for those who do.
            let _ = thread.join();
        }
    }
}
