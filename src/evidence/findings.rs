//! What was found about a job or a vault while it was judged, and how bad it is.

use super::status::State;

/// What was found, and how bad it is.
#[derive(Default)]
pub(super) struct Findings {
    list: Vec<(State, String)>,
}

impl Findings {
    pub(super) fn add(&mut self, state: State, reason: String) {
        self.list.push((state, reason));
    }

    /// Takes over what another one found; gives the worst of that.
    pub(super) fn take(&mut self, other: Self) -> State {
        let worst = other.list.iter().map(|(state, _)| *state).max().unwrap_or(State::Ok);
        self.list.extend(other.list);
        worst
    }

    /// How bad the first reason is that says this.
    #[cfg(test)]
    pub(super) fn found(&self, what: &str) -> Option<State> {
        self.list.iter().find(|(_, reason)| reason.contains(what)).map(|(state, _)| *state)
    }

    /// The worst state, and the reasons with the worst first, otherwise as they were found.
    pub(super) fn judged(mut self) -> (State, Vec<String>) {
        self.list.sort_by_key(|(state, _)| std::cmp::Reverse(*state));
        let state = self.list.first().map_or(State::Ok, |(state, _)| *state);
        (state, self.list.into_iter().map(|(_, reason)| reason).collect())
    }
}
