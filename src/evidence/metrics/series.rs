//! Every series that is told: its name, type and labels, what it says, and when it is left out. docs/METRICS.md shows this
//! table, and a test holds the two together.

/// How a value may move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Up and down.
    Gauge,
    /// Up only; one that fell was counted anew (a catalog that was rebuilt).
    Counter,
}

impl Kind {
    /// As it stands after `# TYPE`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

/// What there is to know of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// Its name; the unit last.
    pub name: &'static str,
    /// How it may move.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence, as it stands after `# HELP`.
    pub help: &'static str,
    /// When it is left out.
    pub absent: &'static str,
}

macro_rules! series {
    ($($variant:ident $kind:ident $name:literal [$($label:literal),*] $help:literal, $absent:literal;)*) => {
        /// A series. Texts have them in this order.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Series {
            $(#[doc = $help] $variant,)*
        }

        impl Series {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// What it is.
            #[must_use]
            pub fn definition(self) -> Definition {
                match self {
                    $(Self::$variant => Definition {
                        name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help, absent: $absent,
                    },)*
                }
            }
        }
    };
}

series! {
    BuildInfo Gauge "lifeboat_build_info" ["version"]
        "The version of lifeboat that wrote this; always 1.", "never";
    ExportTimestamp Gauge "lifeboat_export_timestamp_seconds" []
        "When these values were computed.", "never";
    JobInfo Gauge "lifeboat_job_info" ["job_name", "vault"]
        "A job of the config and its vault; always 1.", "the job is not in the config";
    ObjectiveRpo Gauge "lifeboat_objective_rpo_seconds" ["job_name"]
        "How much recent data may be lost.", "the config promises none";
    ObjectiveRto Gauge "lifeboat_objective_rto_seconds" ["job_name"]
        "How long a restore may take.", "the config promises none";
    RecoveryPoint Gauge "lifeboat_recovery_point_timestamp_seconds" ["job_name"]
        "The moment that a restore now would go back to.", "no backup counts: a loss would be unbounded";
    OldestRecoveryPoint Gauge "lifeboat_oldest_recovery_point_timestamp_seconds" ["job_name"]
        "The oldest moment that a restore could go back to.", "no backup counts";
    RpoWorst Gauge "lifeboat_rpo_worst_seconds" ["job_name", "window"]
        "The largest exposure in the window; +Inf where there was nothing to restore from.",
        "neither a run nor a backup of the job is known";
    RpoProvenWorst Gauge "lifeboat_rpo_proven_worst_seconds" ["job_name", "window"]
        "The largest exposure in the window, if only what a drill has proven counts; +Inf where nothing was proven.",
        "neither a run nor a backup of the job is known";
    LastRunSuccess Gauge "lifeboat_last_run_success" ["job_name", "operation"]
        "Whether the last run went well: 1, or 0 where it failed, was stopped or is partial.", "there was none";
    LastRunTimestamp Gauge "lifeboat_last_run_timestamp_seconds" ["job_name", "operation"]
        "When the last run ended, well or badly.", "there was none";
    Runs Counter "lifeboat_runs_total" ["job_name", "operation", "outcome"]
        "Runs that the catalog knows.", "the vault was never opened from here";
    BackupLastSuccess Gauge "lifeboat_backup_last_success_timestamp_seconds" ["job_name"]
        "When a complete backup was last made.", "there was none";
    BackupLastDuration Gauge "lifeboat_backup_last_duration_seconds" ["job_name"]
        "How long the last committed backup took.", "there was none";
    BackupLastLogicalBytes Gauge "lifeboat_backup_last_logical_bytes" ["job_name"]
        "Plain bytes in the last committed backup.", "there was none";
    BackupLastStoredBytes Gauge "lifeboat_backup_last_stored_bytes" ["job_name"]
        "Stored bytes that the last committed backup names, shared with others or not.", "there was none";
    BackupLastErrors Gauge "lifeboat_backup_last_errors" ["job_name", "class"]
        "Notes that the last committed backup left; only what is unreadable makes it partial.", "there was none";
    Backups Gauge "lifeboat_backups" ["job_name"]
        "Backups in the vault, partial and refuted ones too.", "the vault was never opened from here";
    VaultReachable Gauge "lifeboat_vault_reachable" ["vault"]
        "Whether the vault could be opened and read just now: 1, or 0, and then its jobs are told as remembered.",
        "no job of the config uses it";
    VaultStoredBytes Gauge "lifeboat_vault_stored_bytes" ["vault"]
        "Bytes of everything that lies in the vault, counted by listing it.",
        "it cannot be listed within 20 s";
    DrillLastSuccess Gauge "lifeboat_drill_last_success_timestamp_seconds" ["job_name"]
        "When a drill last passed.", "none ever did";
    DrillLastDuration Gauge "lifeboat_drill_last_duration_seconds" ["job_name"]
        "The RTO that the last drill measured.", "there was none, or it failed: a failed drill has no time";
    DrillPhase Gauge "lifeboat_drill_phase_duration_seconds" ["job_name", "phase"]
        "Where the time of the last drill went, of a failed one until it failed.", "there was none";
    DrillRecoveryPoint Gauge "lifeboat_drill_recovery_point_timestamp_seconds" ["job_name"]
        "The recovery point of the backup that the last drill restored.", "there was none, or it found no backup";
    DrillChecks Gauge "lifeboat_drill_checks" ["job_name", "result"]
        "Checks of the last drill.", "there was none";
    PruneLastSuccess Gauge "lifeboat_prune_last_success_timestamp_seconds" ["job_name"]
        "When a prune last came through.", "none ever did";
    ErasurePlanned Gauge "lifeboat_erasure_planned_timestamp_seconds" ["job_name"]
        "When the backup with the next erasure deadline goes in normal running.", "no byte is left to erase";
    ErasureDeadline Gauge "lifeboat_erasure_deadline_timestamp_seconds" ["job_name"]
        "When the oldest byte that is there must be gone.", "no byte is left to erase";
    OldestRetainedByte Gauge "lifeboat_oldest_retained_byte_timestamp_seconds" ["job_name"]
        "The recovery point of the oldest backup of which a byte may be there, removed or not.",
        "no byte is left to erase";
    ScheduleInterval Gauge "lifeboat_schedule_interval_seconds" ["job_name", "operation"]
        "The longest time between two runs that the schedule leaves.",
        "the operation has no schedule; a prune without one has that of the backups it follows";
    ScheduleNext Gauge "lifeboat_schedule_next_timestamp_seconds" ["job_name", "operation"]
        "When it is started next: by the daemon where that tells, else by the schedule.", "the operation has no schedule of its own";
    ScheduleSkipped Counter "lifeboat_schedule_skipped_total" ["job_name", "operation", "reason"]
        "Scheduled runs that the daemon did not begin.", "it is not the daemon that tells";
    NotifyFailures Counter "lifeboat_notify_failures_total" ["channel"]
        "Attempts to deliver a notification that failed, and notifications that were given up.", "it is not the daemon that tells";
    AuditChainOk Gauge "lifeboat_audit_chain_ok" ["job_name"]
        "Whether each backup that the job ever had is in the vault and believed, or gone for a recorded reason: 1 or 0.",
        "the vault cannot be read";
}
