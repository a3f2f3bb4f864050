//! One of crontab's five fields: lists of values, names, ranges and steps, expanded to plain values.

use std::collections::BTreeSet;

use super::ScheduleError;

/// What may stand in one of the five fields.
pub(super) struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

pub(super) const MINUTE: Field = Field { name: "minute", least: 0, most: 59, names: &[] };
pub(super) const HOUR: Field = Field { name: "hour", least: 0, most: 23, names: &[] };
pub(super) const DAY: Field = Field { name: "day-of-month", least: 1, most: 31, names: &[] };
pub(super) const MONTH: Field = Field {
    name: "month",
    least: 1,
    most: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
pub(super) const WEEKDAY: Field =
    Field { name: "weekday", least: 0, most: 7, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

impl Field {
    /// The values that a field's text stands for.
    pub(super) fn values(&self, text: &str, field: &str) -> Result<BTreeSet<u32>, ScheduleError> {
        let mut values = BTreeSet::new();
        for item in field.split(',') {
            let wrong = |what: String| ScheduleError::Field {
                text: text.to_owned(),
                field: self.name,
                item: item.to_owned(),
                what,
            };
            self.item(item, &mut values).map_err(wrong)?;
        }
        Ok(values)
    }

    fn item(&self, item: &str, values: &mut BTreeSet<u32>) -> Result<(), String> {
        let (range, step) = match item.split_once('/') {
            None => (item, 1),
            Some((range, step)) => {
                let step = step.parse::<u32>().ok().filter(|step| (1..=self.most).contains(step));
                (range, step.ok_or_else(|| format!("has no step between 1 and {} behind its `/`", self.most))?)
            }
        };
        let (low, high) = if range == "*" {
            // A weekday counts from Sunday, and Sunday once.
            (self.least, if self.most == 7 { 6 } else { self.most })
        } else if let Some((low, high)) = range.split_once('-') {
            let (low, mut high) = (self.value(low)?, self.value(high)?);
            // `FRI-SUN`: a name at the end of a range that has begun already is the coming Sunday.
            if self.most == 7 && high == 0 && low > 0 && range.to_ascii_lowercase().ends_with("sun") {
                high = 7;
            }
            (low, high)
        } else {
            let value = self.value(range)?;
            if item.contains('/') {
                return Err(format!("needs a range before its `/`, such as {value}-{}/{step}", self.most));
            }
            (value, value)
        };
        if low > high {
            return Err(format!("runs backwards; write it as two, such as {low}-{},{}-{high}", self.most, self.least));
        }
        values.extend((low..=high).step_by(step as usize));
        Ok(())
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        if let Some(place) = self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(u32::try_from(place).unwrap_or_default() + self.least);
        }
        let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
        let value = if digits { text.parse::<u32>().ok() } else { None };
        value.filter(|value| (self.least..=self.most).contains(value)).ok_or_else(|| {
            let names = match (self.names.first(), self.names.last()) {
                (Some(first), Some(last)) => format!(", or {first} to {last}"),
                _ => String::new(),
            };
            format!("is not a value from {} to {}{names}", self.least, self.most)
        })
    }
}
