//! The loop with a clock that is moved by hand and work that does what it is told.

use std::collections::VecDeque;
use std::fs;
use std::sync::Mutex;

use tempfile::TempDir;

use super::*;
use crate::clock::ManualClock;
use crate::daemon::lock;
use crate::domain::operation::Operation;
use crate::schedules::{Identity, Wanted};

/// An event is there or comes at once; a test that waits longer hangs.
const SOON: Duration = Duration::from_secs(60);

/// Work that notes what it was given, and ends as it is told: at once, or when it is interrupted.
#[derive(Default)]
struct Bench {
    done: Mutex<Vec<Start>>,
    answers: Mutex<VecDeque<Answer>>,
}

enum Answer {
    At(Outcome),
    WhenInterrupted,
    Panic,
}

impl Work for Bench {
    fn run(&self, start: &Start, _: &Settings, interrupt: Interrupt) -> Outcome {
        lock(&self.done).push(start.clone());
        let answer = lock(&self.answers).pop_front();
        match answer {
            None => outcome(Ending::Final),
            Some(Answer::At(outcome)) => outcome,
            Some(Answer::Panic) => panic!("as told"),
            Some(Answer::WhenInterrupted) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                runtime.block_on(interrupt.raised());
                outcome(Ending::Interrupted)
            }
        }
    }
}

fn outcome(ending: Ending) -> Outcome {
    let error = (ending != Ending::Final).then(|| Error::new(Code::StorageFailed, "as told"));
    Outcome { word: "as-told", error, facts: String::new(), ending, rto: None, followed: None }
}

struct Ground {
    folder: TempDir,
    clock: Arc<ManualClock>,
    bench: Arc<Bench>,
    board: Board,
}

impl Ground {
    fn new(schedule: &str) -> Self {
        let clock = Arc::new(ManualClock::at("2026-11-22T01:30:00Z".parse().unwrap()));
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("state")).unwrap();
        let board = Board::new(Arc::<ManualClock>::clone(&clock));
        let ground = Self { folder, clock, bench: Arc::default(), board };
        ground.config(schedule);
        ground
    }

    fn config(&self, schedule: &str) {
        let (_, recipient) = crate::seal::Identities::generate();
        let text = format!(
            "state_dir = \"state\"\n[vault.main]\nurl = \"vault\"\nrecipients = [\"{recipient}\"]\n[job.shop]\n\
             schedule = \"{schedule}\"\nretention = {{ keep_at_least = \"14d\", delete_after = \"30d\" }}\n\
             [job.shop.source.files]\nkind = \"files\"\npaths = [\"data\"]\n"
        );
        self.write(&text);
    }

    fn write(&self, text: &str) {
        fs::write(self.folder.path().join("lifeboat.toml"), text).unwrap();
    }

    fn engine(&self) -> Result<Engine> {
        self.engine_with(Herald::mute())
    }

    fn engine_with(&self, herald: Herald) -> Result<Engine> {
        Engine::new(Orders {
            clock: Arc::<ManualClock>::clone(&self.clock),
            settings: Settings::load(Some(&self.folder.path().join("lifeboat.toml")))?,
            wanted: Wanted { operations: Operation::ALL.to_vec(), identity: Identity::InConfig },
            seed: [1; 32],
            work: Arc::<Bench>::clone(&self.bench),
            board: self.board.clone(),
            herald,
        })
    }

    fn minutes(&self, minutes: u64) {
        self.clock.advance(Duration::from_secs(minutes * 60));
    }

    /// The slots that were begun, as `hour:minute #attempt`.
    fn begun(&self) -> Vec<String> {
        let done = lock(&self.bench.done);
        done.iter().map(|start| format!("{} #{}", start.slot.format("%H:%M"), start.attempt)).collect()
    }

    fn answer(&self, answer: Answer) {
        lock(&self.bench.answers).push_back(answer);
    }
}

/// A turn, and the end of everything that it started.
fn turn_to_the_end(engine: &mut Engine) {
    engine.turn();
    while !engine.running.is_empty() {
        let event = engine.wait(SOON).expect("a run ends");
        engine.take(event);
    }
}

#[test]
fn what_is_due_is_done_once_whoever_restarts() {
    let ground = Ground::new("0 * * * *");
    for minutes in [0, 29, 1, 0, 59, 1, 180] {
        // Another process each time.
        let mut engine = ground.engine().unwrap();
        ground.minutes(minutes);
        turn_to_the_end(&mut engine);
        turn_to_the_end(&mut engine);
    }
    assert_eq!(ground.begun(), ["02:00 #1", "03:00 #1", "06:00 #1"]);
    let mut engine = ground.engine().unwrap();
    assert!(engine.turn() <= MAX_SLEEP);
    let notice = ground.board.notice();
    assert_eq!(notice.tasks[0].next, Some("2026-11-22T07:00:00Z".parse().unwrap()));
    assert_eq!((notice.tasks[0].missed, notice.tasks[0].overlapped), (2, 0));
}

#[test]
fn a_process_that_dies_forgets_nothing() {
    let ground = Ground::new("0 * * * *");
    ground.answer(Answer::WhenInterrupted);
    let mut engine = ground.engine().unwrap();
    ground.minutes(30);
    engine.turn();
    // Whatever the thread still does, this process never hears of it.
    let interrupt = engine.running.values().next().unwrap().interrupt.clone();
    drop(engine);
    interrupt.raise();
    let mut engine = ground.engine().unwrap();
    turn_to_the_end(&mut engine);
    assert_eq!(ground.begun().len(), 1, "not at once: what kills it may kill it again");
    ground.minutes(1);
    turn_to_the_end(&mut engine);
    assert_eq!(ground.begun(), ["02:00 #1", "02:00 #2"]);
    let began = "2026-11-22T02:00:00Z".parse().unwrap();
    assert_eq!(lock(&ground.bench.done)[1].lost_since, Some(began));
}

#[test]
fn a_failure_that_may_pass_is_tried_again_and_a_panic_is_not() {
    let ground = Ground::new("0 * * * *");
    ground.answer(Answer::At(outcome(Ending::Transient)));
    ground.answer(Answer::Panic);
    let mut engine = ground.engine().unwrap();
    for minutes in [30, 1, 1, 30] {
        ground.minutes(minutes);
        turn_to_the_end(&mut engine);
    }
    assert_eq!(ground.begun(), ["02:00 #1", "02:00 #2"]);
}

/// What waits for a channel that nobody can reach: the secret is nowhere.
#[test]
fn a_failure_is_told_when_it_is_not_tried_again() {
    let ground = Ground::new("0 * * * *");
    let path = ground.folder.path().join("lifeboat.toml");
    let more = "[notify.chat]\nkind = \"slack\"\nurl = { env = \"LIFEBOAT_TEST_NOWHERE\" }\n";
    fs::write(&path, format!("{}{more}", fs::read_to_string(&path).unwrap())).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&ground.clock);
    let herald = Herald::start(runtime.handle().clone(), Arc::clone(&clock)).unwrap();
    let mut engine = ground.engine_with(herald).unwrap();
    let courier =
        crate::notify::courier::Courier::new(&ground.folder.path().join("state"), runtime.handle().clone(), clock);
    let queue = courier.unwrap().queue();
    let told = || -> Vec<(String, Option<String>)> {
        let items = queue.items().unwrap();
        let events = items.into_iter().filter_map(|item| match item.what {
            crate::notify::queue::What::Event(event) => Some((event.title(), event.error_code)),
            crate::notify::queue::What::Beat(_) => None,
        });
        events.collect()
    };
    ground.answer(Answer::At(outcome(Ending::Transient)));
    ground.answer(Answer::Panic);
    ground.minutes(30);
    turn_to_the_end(&mut engine);
    assert_eq!((ground.begun().len(), told()), (1, vec![]), "it is tried again in a minute");
    ground.minutes(1);
    turn_to_the_end(&mut engine);
    let failed = ("backup of shop failed".to_owned(), Some("internal".to_owned()));
    assert_eq!((ground.begun().len(), told()), (2, vec![failed.clone()]));
    ground.minutes(59);
    turn_to_the_end(&mut engine);
    assert_eq!(told(), [failed, ("backup of shop works again".to_owned(), None)]);
    // Another config, without anybody to tell.
    ground.config("0 * * * *");
    ground.answer(Answer::Panic);
    ground.minutes(60);
    turn_to_the_end(&mut engine);
    assert_eq!((ground.begun().len(), told().len()), (4, 2));
}

#[test]
fn a_changed_config_is_taken_up_and_a_broken_one_is_not() {
    let ground = Ground::new("0 * * * *");
    let mut engine = ground.engine().unwrap();
    turn_to_the_end(&mut engine);
    ground.write("[job.shop]\ncorn = \"0 * * * *\"\n");
    turn_to_the_end(&mut engine);
    assert_eq!(ground.board.notice().config.as_deref(), Some("[config-invalid]"));
    ground.minutes(30);
    turn_to_the_end(&mut engine);
    assert_eq!(ground.begun(), ["02:00 #1"], "the last good one is in use");
    // Times that are over start nothing.
    ground.config("30 1 * * *");
    turn_to_the_end(&mut engine);
    ground.config("1 2 * * *");
    engine.take(Event::Reload);
    turn_to_the_end(&mut engine);
    assert_eq!((ground.board.notice().config, ground.begun().len()), (None, 1));
    ground.minutes(1);
    turn_to_the_end(&mut engine);
    assert_eq!(ground.begun(), ["02:00 #1", "02:01 #1"]);
    // The state folder stays where it is.
    let text = fs::read_to_string(ground.folder.path().join("lifeboat.toml")).unwrap();
    ground.write(&text.replace("\"state\"", "\"elsewhere\""));
    turn_to_the_end(&mut engine);
    assert!(ground.board.notice().config.is_some());
}

#[test]
fn two_daemons_do_not_share_a_state_folder() {
    let ground = Ground::new("0 * * * *");
    let _first = ground.engine().unwrap();
    assert_eq!(ground.engine().unwrap_err().code(), Code::Locked);
}

#[test]
fn it_ends_in_good_order_and_goes_on_where_it_was() {
    let ground = Ground::new("0 * * * *");
    ground.answer(Answer::WhenInterrupted);
    let mut engine = ground.engine().unwrap();
    ground.minutes(30);
    engine.sender().send(Event::Terminate).unwrap();
    // The first turn starts the run, and then the event is heard.
    assert_eq!(engine.run(&Service::default()), []);
    drop(engine);
    let mut engine = ground.engine().unwrap();
    turn_to_the_end(&mut engine);
    assert_eq!(ground.begun(), ["02:00 #1", "02:00 #1"]);
    ground.minutes(10);
    turn_to_the_end(&mut engine);
    assert_eq!(ground.begun().len(), 2);
}
