//! The series that only the daemon knows, in Prometheus' text format. The others come from the catalog.

use std::fmt::Write as _;

use super::board::Notice;

/// `lifeboat_schedule_next_timestamp_seconds` and `lifeboat_schedule_skipped_total`.
#[must_use]
pub fn schedule_series(notice: &Notice) -> String {
    let mut text = String::new();
    text.push_str("# HELP lifeboat_schedule_next_timestamp_seconds When the daemon starts it next.\n");
    text.push_str("# TYPE lifeboat_schedule_next_timestamp_seconds gauge\n");
    for task in &notice.tasks {
        if let Some(next) = task.next {
            let (job, operation) = (&task.task.job, task.task.operation);
            let _ = writeln!(
                text,
                "lifeboat_schedule_next_timestamp_seconds{{job_name=\"{job}\",operation=\"{operation}\"}} {}",
                next.timestamp()
            );
        }
    }
    text.push_str("# HELP lifeboat_schedule_skipped_total Times of the schedule that nothing was started for.\n");
    text.push_str("# TYPE lifeboat_schedule_skipped_total counter\n");
    for task in &notice.tasks {
        for (reason, count) in [("missed", task.missed), ("overlap", task.overlapped)] {
            let (job, operation) = (&task.task.job, task.task.operation);
            let _ = writeln!(
                text,
                "lifeboat_schedule_skipped_total{{job_name=\"{job}\",operation=\"{operation}\",reason=\"{reason}\"}} {count}"
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::board::TaskNotice;
    use super::*;

    #[test]
    fn each_task_has_its_series() {
        let task = TaskNotice {
            task: "shop/backup".parse().unwrap(),
            next: Some("2026-11-22T02:00:00Z".parse().unwrap()),
            running_since: None,
            missed: 3,
            overlapped: 0,
        };
        let text = schedule_series(&Notice { tasks: vec![task], ..Notice::default() });
        for line in [
            "lifeboat_schedule_next_timestamp_seconds{job_name=\"shop\",operation=\"backup\"} 1795312800",
            "lifeboat_schedule_skipped_total{job_name=\"shop\",operation=\"backup\",reason=\"missed\"} 3",
            "lifeboat_schedule_skipped_total{job_name=\"shop\",operation=\"backup\",reason=\"overlap\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
