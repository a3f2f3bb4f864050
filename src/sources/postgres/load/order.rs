//! In which order, and how many at a time, what stands behind the rows is made. It knows entries by their kinds and
//! asks nobody.
//!
//! pg_restore with several jobs keeps apart the entries that need the same tables, and does not know that a change to a
//! partition, a partitioned table or an index of either locks more of the family than the entry names: attaching an
//! index takes locks downwards, and upwards once the last part is there, and a trigger takes them downwards. Two of
//! them at a time can wait for each other, and the server ends one. So only what takes its time by reading rows goes
//! several at a time, each kind among its like; what merely writes a line into a catalog goes one after the other.

use super::archive::Entry;

/// Entries that are made in one go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) doing: &'static str,
    pub(super) pace: Pace,
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// As many as there are jobs.
    Several,
    OneByOne,
}

/// What an entry is, as far as the order depends on it; in the order in which they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Key,
    Index,
    /// An index becomes part of a partitioned one. A foreign key may need the whole.
    Attachment,
    ForeignKey,
    Other,
    MaterializedView,
    /// Last: it may watch everything else.
    EventTrigger,
}

impl Kind {
    fn of(entry: &Entry) -> Self {
        let begins = |beginning: &str| entry.description().starts_with(beginning);
        if begins("CONSTRAINT ") {
            Self::Key
        } else if begins("INDEX ATTACH ") {
            Self::Attachment
        } else if begins("INDEX ") {
            Self::Index
        } else if begins("FK CONSTRAINT ") {
            Self::ForeignKey
        } else if begins("MATERIALIZED VIEW DATA ") {
            Self::MaterializedView
        } else if begins("EVENT TRIGGER ") || begins("COMMENT - EVENT TRIGGER ") {
            Self::EventTrigger
        } else {
            Self::Other
        }
    }

    fn step(self, entries: Vec<Entry>) -> Step {
        let (doing, pace) = match self {
            Self::Key => ("making keys", Pace::Several),
            Self::Index => ("making indexes", Pace::Several),
            Self::Attachment => ("putting the indexes of partitions together", Pace::OneByOne),
            Self::ForeignKey => ("making foreign keys", Pace::Several),
            Self::Other => ("making constraints, triggers and policies", Pace::OneByOne),
            Self::MaterializedView => ("filling materialized views", Pace::Several),
            Self::EventTrigger => ("making event triggers", Pace::OneByOne),
        };
        Step { doing, pace, entries }
    }
}

/// Keys by themselves, as soon as which the database can be asked, and everything else in steps.
pub(super) fn steps(entries: Vec<Entry>) -> (Step, Vec<Step>) {
    let mut kinds: std::collections::BTreeMap<Kind, Vec<Entry>> = std::collections::BTreeMap::new();
    for entry in entries {
        kinds.entry(Kind::of(&entry)).or_default().push(entry);
    }
    let keys = Kind::Key.step(kinds.remove(&Kind::Key).unwrap_or_default());
    // Nothing between them: then there is no reason for a core to wait for the last index.
    if !kinds.contains_key(&Kind::Attachment)
        && let Some(foreign_keys) = kinds.remove(&Kind::ForeignKey)
    {
        kinds.entry(Kind::Index).or_default().extend(foreign_keys);
    }
    (keys, kinds.into_iter().map(|(kind, entries)| kind.step(entries)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(lines: &[&str]) -> Vec<Entry> {
        lines.iter().map(|line| Entry::read(line).unwrap()).collect()
    }

    fn shown(steps: &[Step]) -> Vec<(Pace, Vec<u32>)> {
        steps.iter().map(|step| (step.pace, step.entries.iter().map(Entry::number).collect())).collect()
    }

    #[test]
    fn what_locks_whole_families_goes_one_after_the_other() {
        let (keys, others) = steps(entries(&[
            "1; 2606 1 CONSTRAINT public t t_pkey owner",
            "2; 1259 2 INDEX public t_a owner",
            "3; 0 0 INDEX ATTACH public t_1_a owner",
            "4; 0 0 COMMENT public INDEX t_a owner",
            "5; 2618 5 RULE public t noted owner",
            "6; 2620 6 TRIGGER public t watch owner",
            "7; 2606 7 FK CONSTRAINT public t t_of owner",
            "8; 3256 8 POLICY public t own owner",
            "9; 3466 9 EVENT TRIGGER - watch owner",
            "10; 0 0 COMMENT - EVENT TRIGGER watch owner",
            "11; 0 11 MATERIALIZED VIEW DATA public daily owner",
            "12; 2606 12 CHECK CONSTRAINT public t late owner",
        ]));
        assert_eq!(shown(&[keys]), [(Pace::Several, vec![1])]);
        let expected = [
            (Pace::Several, vec![2]),
            (Pace::OneByOne, vec![3]),
            (Pace::Several, vec![7]),
            (Pace::OneByOne, vec![4, 5, 6, 8, 12]),
            (Pace::Several, vec![11]),
            (Pace::OneByOne, vec![9, 10]),
        ];
        assert_eq!(shown(&others), expected);
    }

    #[test]
    fn without_partitions_foreign_keys_do_not_wait_for_indexes() {
        let (keys, others) = steps(entries(&[
            "7; 2606 7 FK CONSTRAINT public t t_of owner",
            "2; 1259 2 INDEX public t_a owner",
            "8; 3256 8 POLICY public t own owner",
        ]));
        assert!(keys.entries.is_empty());
        assert_eq!(shown(&others), [(Pace::Several, vec![2, 7]), (Pace::OneByOne, vec![8])]);
    }
}
