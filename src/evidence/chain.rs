//! The chain of a job's believed backups, as far as it contradicts itself: numbers that two of them have, or a predecessor that
//! is another one. What is missing in it, or not believed, is told by `status` itself.

use super::facts::JobFacts;
use super::findings::Findings;
use super::status::State;

/// Each of these is signed by a host that may sign, so at most one of two is what it says: one host's state was copied or put
/// back, two wrote the job at once, or somebody has the key of one.
pub(super) fn judge_chain(findings: &mut Findings, facts: &JobFacts) {
    let found = match facts.chain_breaks {
        0 => return,
        1 => "a backup shares its number with another one, or does not follow the one before it".to_owned(),
        count => format!("{count} backups share their number with another one, or do not follow the one before them"),
    };
    findings.add(
        State::Critical,
        format!(
            "{found}, and each is signed by a host that may sign: run `lifeboat check {}`, which names them, and `lifeboat host \
             list` for who may write",
            facts.job
        ),
    );
}

#[cfg(test)]
mod tests {
    use crate::evidence::samples::*;
    use crate::evidence::status::{State, job_status};

    #[test]
    fn a_chain_that_contradicts_itself_is_an_alarm() {
        let mut facts = healthy();
        let before = job_status(&facts, now());
        assert!(before.state == State::Ok && before.reasons.is_empty(), "{before:?}");
        for (breaks, words) in [(1, "a backup shares its number"), (3, "3 backups share their number")] {
            facts.chain_breaks = breaks;
            let status = job_status(&facts, now());
            assert_eq!(status.state, State::Critical);
            assert!(status.reasons[0].starts_with(words), "{:?}", status.reasons);
            assert!(status.reasons[0].contains("run `lifeboat check shop`"), "{:?}", status.reasons);
        }
    }
}
