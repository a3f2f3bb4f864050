//! Every key that a config may have: the one table that the strict reading, `config schema` and the docs go by.
//!
//! A test compares it with the serde image, so that neither can have a key that the other lacks.

mod key;

pub use key::{Key, Need, Takes};

use Need::{Default, Optional, Required};
use key::key;

/// The table.
pub const KEYS: &[Key] = &[
    key(
        "timezone",
        Takes::Text,
        Default("UTC"),
        "The wall clock that schedules are read on, such as \"Europe/Berlin\".",
    )
    .also(&["tz", "time_zone"]),
    key(
        "state_dir",
        Takes::Path,
        Default("/var/lib/lifeboat"),
        "The host's own folder: its signing key, caches, the catalog.",
    )
    .also(&["state", "data_dir"]),
    key("vault", Takes::Named, Optional, "Where sealed backups lie, by name.").also(&["vaults", "repository"]),
    key(
        "vault.*.url",
        Takes::Text,
        Required,
        "A folder (relative to the config's own), or \"s3://bucket/prefix\".",
    )
    .also(&["path", "folder"]),
    key(
        "vault.*.recipients",
        Takes::Texts,
        Required,
        "The age public keys that every backup is sealed to: who can open it.",
    )
    .also(&["recipient", "public_keys"]),
    key(
        "vault.*.trust",
        Takes::Text,
        Optional,
        "The vault's signing key (minisign, public half). Left out: the state folder knows it on the host that made the vault.",
    ),
    key(
        "vault.*.compression",
        Takes::Number,
        Optional,
        "zstd's level, 1 to 19. Left out: 3 for files, 2 for databases, most of whose rows become no smaller at 3.",
    )
    .also(&["compression_level"]),
    key(
        "vault.*.grace",
        Takes::Duration,
        Optional,
        "How long an object that no backup names waits before it is erased. Left out: an eighth of the smallest \
         `delete_after` - `keep_at_least` of the vault's jobs in this config, at most 24h. The jobs of other hosts that share \
         the vault are not known here: write the same grace on all of them.",
    )
    .also(&["grace_period"]),
    key(
        "vault.*.region",
        Takes::Text,
        Optional,
        "s3:// only. The bucket's region. Left out: $AWS_REGION, the profile's, the instance's; else \"us-east-1\".",
    ),
    key(
        "vault.*.endpoint",
        Takes::Text,
        Optional,
        "s3:// only. The store's address, such as \"https://s3.example.com\". Left out: $AWS_ENDPOINT_URL_S3, \
         $AWS_ENDPOINT_URL, the profile's; else AWS.",
    )
    .also(&["endpoint_url", "host"]),
    key(
        "vault.*.path_style",
        Takes::Flag,
        Optional,
        "s3:// only. Put the bucket's name into the path instead of the host's name. Left out: yes where an endpoint is given, \
         no on AWS.",
    )
    .also(&["force_path_style"]),
    key(
        "vault.*.profile",
        Takes::Text,
        Optional,
        "s3:// only. The profile in ~/.aws/config and ~/.aws/credentials. Left out: $AWS_PROFILE, else \"default\".",
    ),
    key(
        "vault.*.access_key",
        Takes::Secret,
        Optional,
        "s3:// only. The access key's id. Left out: the environment, the profile, the container's or instance's role.",
    )
    .also(&["access_key_id"]),
    key("vault.*.secret_key", Takes::Secret, Optional, "s3:// only. The secret half of `access_key`.")
        .also(&["secret_access_key"]),
    key("vault.*.session_token", Takes::Secret, Optional, "s3:// only. The token that goes with temporary keys."),
    key(
        "vault.*.ca",
        Takes::Path,
        Optional,
        "s3:// only. The certificate (PEM) of the one authority that may vouch for the endpoint. Left out: those that this \
         host believes.",
    )
    .also(&["ca_bundle", "cacert"]),
    key(
        "vault.*.parallel_requests",
        Takes::Number,
        Default("32"),
        "s3:// only. How many requests are under way at a time, 1 to 256.",
    )
    .also(&["max_connections"]),
    key(
        "vault.*.bandwidth_limit",
        Takes::Text,
        Optional,
        "s3:// only. The most that goes over the network in a second, up and down together: \"20MiB\".",
    )
    .also(&["bandwidth", "limit"]),
    key(
        "vault.*.lock",
        Takes::Text,
        Optional,
        "s3:// only. Hold what is stored against deletion, with Object Lock: \"governance\" (somebody with a right of its own \
         can still delete) or \"compliance\" (nobody can). Until when follows from `keep_at_least` and `delete_after`.",
    )
    .also(&["object_lock", "retention_mode"]),
    key("job", Takes::Named, Optional, "What is protected together, by name.").also(&["jobs", "backup"]),
    key("job.*.vault", Takes::Text, Optional, "The vault's name. Left out: the only one that there is."),
    key("job.*.schedule", Takes::Schedule, Required, "When a backup is due.").also(&["cron", "when", "every"]),
    key("job.*.retention", Takes::Table, Required, "How long backups are kept, and when they are gone.")
        .also(&["keep"]),
    key("job.*.retention.keep_at_least", Takes::Duration, Required, "No backup is erased before it is this old."),
    key("job.*.retention.delete_after", Takes::Duration, Required, "Nothing of a backup is left when it is this old."),
    key(
        "job.*.retention.daily",
        Takes::Number,
        Optional,
        "Between the two ages: keep one backup a day, for so many days.",
    ),
    key(
        "job.*.retention.weekly",
        Takes::Number,
        Optional,
        "Between the two ages: keep one backup a week, for so many weeks.",
    ),
    key(
        "job.*.retention.last_good",
        Takes::Text,
        Default("keep"),
        "What happens to the last good backup when it must be erased and no newer good one exists: \"keep\" (it stays, with \
         an alarm) or \"erase\".",
    ),
    key("job.*.prune", Takes::Table, Optional, "When expired backups are erased.").also(&["erase", "forget", "gc"]),
    key(
        "job.*.prune.schedule",
        Takes::Schedule,
        Optional,
        "When a prune is due. Left out: after each successful backup.",
    )
    .also(&["cron", "when", "every"]),
    key("job.*.check", Takes::Table, Optional, "When the vault is compared with its names and signatures.")
        .also(&["verify"]),
    key("job.*.check.schedule", Takes::Schedule, Required, "When a check is due.").also(&["cron", "when", "every"]),
    key("job.*.copy", Takes::Table, Optional, "A second vault that the job's backups are copied to.")
        .also(&["mirror", "replicate", "offsite"]),
    key(
        "job.*.copy.to",
        Takes::Text,
        Required,
        "The name of that vault: it becomes a copy of the job's own, with the same vault.json, and no job writes to it.",
    )
    .also(&["vault", "target", "destination"]),
    key(
        "job.*.copy.schedule",
        Takes::Schedule,
        Optional,
        "When a copy is due. What has expired is erased in the copy after each that succeeded.",
    )
    .also(&["cron", "when", "every"]),
    key(
        "job.*.copy.prune",
        Takes::Flag,
        Default("true"),
        "false where this host may not delete in the copy: then another one must, `lifeboat prune --vault` with that vault's name.",
    ),
    key("job.*.objectives", Takes::Table, Optional, "What was promised.").also(&["objective", "slo"]),
    key("job.*.objectives.rto", Takes::Duration, Optional, "How long a restore may take."),
    key("job.*.objectives.rpo", Takes::Duration, Optional, "How much recent data may be lost."),
    key("job.*.source", Takes::Named, Required, "One database or file tree each, by name.").also(&["sources"]),
    key("job.*.source.*.kind", Takes::Text, Required, "\"files\", \"sqlite\" or \"postgres\".").also(&["type"]),
    key(
        "job.*.source.*.paths",
        Takes::Paths,
        Required,
        "Files and folders to back up; the job's own SQLite databases, the vault and the state folder are left out.",
    )
    .only("files")
    .also(&["folders"]),
    key("job.*.source.*.exclude", Takes::Texts, Default("[]"), "What to leave out: gitignore globs, below each path.")
        .only("files")
        .also(&["excludes", "ignore"]),
    key(
        "job.*.source.*.one_file_system",
        Takes::Flag,
        Default("false"),
        "Stay on the file systems that the paths lie on.",
    )
    .only("files"),
    key(
        "job.*.source.*.exclude_caches",
        Takes::Flag,
        Default("true"),
        "Leave out what is in folders that a CACHEDIR.TAG marks.",
    )
    .only("files"),
    key("job.*.source.*.path", Takes::Path, Required, "The database file.").only("sqlite").also(&["file", "database"]),
    key(
        "job.*.source.*.url",
        Takes::Text,
        Required,
        "The database: \"postgres://role@host/database\", with sslmode and sslrootcert as libpq knows them; a socket's folder as \
         ?host=/run/postgresql. No password.",
    )
    .only("postgres")
    .also(&["uri", "dsn", "connection"]),
    key(
        "job.*.source.*.databases",
        Takes::WordOrTexts,
        Optional,
        "Instead of the url's database alone: \"all\" that the server has when the backup begins, or these. Each becomes a source \
         of its own: of [job.X.source.db] the database shop is db-shop. Their names stand in clear in the vault, as sources' do.",
    )
    .only("postgres"),
    key(
        "job.*.source.*.exclude_databases",
        Takes::Texts,
        Default("[]"),
        "With databases = \"all\": not these.",
    )
    .only("postgres"),
    key(
        "job.*.source.*.password",
        Takes::Secret,
        Optional,
        "The role's password. Left out: none is sent (peer, trust, or a server that asks for none).",
    )
    .only("postgres"),
    key(
        "job.*.source.*.include_tables",
        Takes::Texts,
        Default("[]"),
        "Only these tables: patterns of schema.table, where * stands for anything. Left out: all.",
    )
    .only("postgres")
    .also(&["tables"]),
    key(
        "job.*.source.*.exclude_tables",
        Takes::Texts,
        Default("[]"),
        "Not these tables, neither their definition nor their rows: patterns of schema.table.",
    )
    .only("postgres"),
    key(
        "job.*.source.*.exclude_data",
        Takes::Texts,
        Default("[]"),
        "Not the rows of these tables, only their definition: patterns of schema.table.",
    )
    .only("postgres"),
    key(
        "job.*.source.*.tools",
        Takes::Path,
        Optional,
        "The folder of pg_dump and pg_dumpall. Left out: the ones of the server's major version, from the usual places.",
    )
    .only("postgres")
    .also(&["bin", "bindir"]),
    key(
        "job.*.source.*.connections",
        Takes::Number,
        Default("4"),
        "How many tables, or parts of one, are read at a time, 1 to 32; one more connection holds the snapshot.",
    )
    .only("postgres")
    .also(&["parallel", "workers"]),
    key(
        "job.*.source.*.max_lock_wait",
        Takes::Duration,
        Default("30s"),
        "How long a backup may keep a statement waiting that needs a table for itself (ALTER, TRUNCATE, DROP); then the \
         backup gives way, and fails.",
    )
    .only("postgres"),
    key(
        "job.*.source.*.max_snapshot",
        Takes::Duration,
        Default("12h"),
        "How long a snapshot may be held: as long as it is, the server cannot vacuum. Then the backup gives up; half-way it warns.",
    )
    .only("postgres"),
    key("job.*.hooks", Takes::Table, Optional, "Programs of yours around each backup, with facts in LIFEBOAT_… variables.")
        .also(&["hook", "commands"]),
    key(
        "job.*.hooks.before",
        Takes::Texts,
        Optional,
        "A program and its arguments, run before a source is opened. Where it fails nothing is backed up.",
    )
    .also(&["pre", "before_backup"]),
    key(
        "job.*.hooks.after",
        Takes::Texts,
        Optional,
        "Run after each run, however it ended, and after a `before` that failed.",
    )
    .also(&["post", "after_backup", "finally"]),
    key("job.*.hooks.on_failure", Takes::Texts, Optional, "Run last, after a run that failed or was partial.")
        .also(&["on_error", "failure"]),
    key("job.*.hooks.timeout", Takes::Duration, Default("5m"), "How long each of them may take."),
    key(
        "job.*.notify",
        Takes::Table,
        Optional,
        "The job's own heartbeats. Jobs that share one hide each other: one that is silent is not missed while another speaks.",
    )
    .also(&["notifications"]),
    key(
        "job.*.notify.heartbeat",
        Takes::Secret,
        Optional,
        "Instead of `url` in [notify.heartbeat]: the address for this job's backups.",
    )
    .also(&["url", "ping"]),
    key(
        "job.*.notify.drill_heartbeat",
        Takes::Secret,
        Optional,
        "Instead of `drill_url` in [notify.heartbeat]: the address for this job's drills.",
    )
    .also(&["drill_url"]),
    key("job.*.drill", Takes::Table, Optional, "The rehearsed restore.").also(&["drills", "restore_test"]),
    key("job.*.drill.schedule", Takes::Schedule, Optional, "When a drill is due.").also(&["cron", "when", "every"]),
    key(
        "job.*.drill.identity",
        Takes::Secret,
        Optional,
        "The age identity that opens the backups. Left out: --identity or $LIFEBOAT_IDENTITY.",
    )
    .also(&["key"]),
    key(
        "job.*.drill.trust_source",
        Takes::Flag,
        Default("false"),
        "Run checks with this program's own rights where no lesser user can be had; the report says so.",
    ),
    key(
        "job.*.drill.scratch",
        Takes::Path,
        Default("/var/tmp/lifeboat-scratch"),
        "Where drills restore to; emptied after each.",
    ),
    key("job.*.drill.check_timeout", Takes::Duration, Default("5m"), "How long one check may take.").also(&["timeout"]),
    key("job.*.drill.server", Takes::Table, Optional, "The server that a PostgreSQL source is restored into."),
    key(
        "job.*.drill.server.url",
        Takes::Text,
        Optional,
        "A server that is there, as \"postgres://role@host/postgres\": the drill makes a database on it and drops it. What is \
         restored runs there, as that role. Left out: the drill makes a server of its own.",
    )
    .also(&["uri", "dsn", "connection"]),
    key(
        "job.*.drill.server.password",
        Takes::Secret,
        Optional,
        "The password of that role. Left out: none is sent.",
    ),
    key(
        "job.*.drill.server.allow_superuser",
        Takes::Flag,
        Default("false"),
        "Let that role be a superuser, or one that makes roles, or reaches the server's files and programs: then whoever \
         controls the source controls the server.",
    ),
    key(
        "job.*.drill.server.settings",
        Takes::Text,
        Default("drill"),
        "\"drill\": as fast as it goes, a crash may cost the copy; \"production\": with PostgreSQL's own durability, so that the \
         time is what a disaster would take.",
    ),
    key(
        "job.*.drill.server.tools",
        Takes::Path,
        Optional,
        "The folder of initdb, postgres and pg_restore. Left out: the ones of the source's major version, from the usual places. \
         With `url` or a container pg_restore alone is needed.",
    )
    .also(&["bin", "bindir"]),
    key(
        "job.*.drill.container",
        Takes::Table,
        Optional,
        "The container that the scratch server runs in, for hosts without the server's programs. It has no network.",
    ),
    key(
        "job.*.drill.container.image",
        Takes::Text,
        Required,
        "An image that this host has, with the server of the source's major version: \"postgres:15\". It is never pulled.",
    ),
    key(
        "job.*.drill.container.program",
        Takes::Text,
        Optional,
        "docker or podman, or the path of either. Left out: the first of the two that is found.",
    )
    .also(&["runtime", "engine"]),
    key("job.*.drill.checks", Takes::Tables, Default("[]"), "What must be true of the restored data.").also(&["check"]),
    key("job.*.drill.checks[].source", Takes::Text, Optional, "The database that `sql` or `freshness` asks."),
    key("job.*.drill.checks[].sql", Takes::Text, Optional, "A query for one row and one column, true or non-zero."),
    key("job.*.drill.checks[].freshness", Takes::Text, Optional, "A query for the time of the newest entry."),
    key("job.*.drill.checks[].within", Takes::Duration, Optional, "How old that may be when the drill starts."),
    key("job.*.drill.checks[].command", Takes::Texts, Optional, "A program and its arguments; it must exit with 0."),
    key("daemon", Takes::Table, Optional, "How `lifeboat daemon` goes about it.").also(&["server", "service"]),
    key(
        "daemon.listen",
        Takes::Text,
        Default("127.0.0.1:9820"),
        "The address of /healthz, /readyz and /metrics; whoever reaches it reads the names of jobs. \"off\": none.",
    )
    .also(&["address", "port", "bind"]),
    key(
        "daemon.names",
        Takes::Texts,
        Default("[]"),
        "By which names it may be asked there, besides addresses and localhost, which always may: a web page's own name that \
         leads here is none of them, and is not answered.",
    )
    .also(&["hosts", "allowed_hosts", "host", "name"]),
    key(
        "daemon.jitter",
        Takes::Duration,
        Default("0s"),
        "At most this much is added to the start of what is due, always the same for a host and a job, so that many hosts do not \
         start at once.",
    )
    .also(&["random_delay", "splay"]),
    key(
        "daemon.jobs_at_once",
        Takes::Number,
        Default("2"),
        "How much may run at a time, 1 to 16; from 2 on one place is kept for backups.",
    )
    .also(&["parallel", "workers", "concurrency"]),
    key(
        "notify",
        Takes::Named,
        Optional,
        "Who is told: [notify.heartbeat], whose silence alarms, and channels by names of one's choice. docs/NOTIFICATIONS.md.",
    )
    .also(&["notifications", "alerts"]),
    key(
        "notify.*.kind",
        Takes::Text,
        Optional,
        "What a channel is: \"webhook\", \"slack\", \"telegram\", \"ntfy\", \"email\" or \"command\". [notify.heartbeat] has none, \
         every other must have one.",
    )
    .also(&["type"]),
    key(
        "notify.*.on",
        Takes::Texts,
        Optional,
        "What a channel is told of: \"failure\", \"recovery\", \"overdue\", \"drill\", \"erasure\". Left out: all of them.",
    )
    .also(&["events", "when"]),
    key("notify.*.jobs", Takes::Texts, Optional, "These jobs alone. Left out: all.").also(&["job"]),
    key(
        "notify.*.details",
        Takes::Flag,
        Default("false"),
        "Send the text of an error as well, which may hold paths and names of data. Without it job, operation, outcome, code, \
         times and the host's name are sent.",
    ),
    key(
        "notify.*.url",
        Takes::Secret,
        Optional,
        "heartbeat, webhook, slack, ntfy. The address; of the heartbeat that for backups, in which {job} and {operation} stand for \
         their names.",
    )
    .also(&["address", "webhook"]),
    key("notify.*.drill_url", Takes::Secret, Optional, "heartbeat only. The address for drills."),
    key(
        "notify.*.exit_status",
        Takes::Flag,
        Default("false"),
        "heartbeat only. Say a failure as URL/21, with the exit status of the command, instead of URL/fail.",
    ),
    key(
        "notify.*.token",
        Takes::Secret,
        Optional,
        "telegram: the bot's token. webhook, ntfy: sent as `Authorization: Bearer …`.",
    )
    .also(&["bot_token", "access_token"]),
    key(
        "notify.*.template",
        Takes::Text,
        Optional,
        "webhook only. Another JSON body: {summary}, {title}, {event}, {host}, {job}, {operation}, {outcome}, {error_code} and {at} \
         stand for texts within quotes, {document} for the whole document.",
    )
    .also(&["body"]),
    key("notify.*.chat", Takes::Text, Optional, "telegram only. The chat: its number, or \"@name\".").also(&["chat_id"]),
    key(
        "notify.*.endpoint",
        Takes::Text,
        Default("https://api.telegram.org"),
        "telegram only. Where the bot's API is.",
    ),
    key(
        "notify.*.server",
        Takes::Text,
        Optional,
        "email only. The mail server: \"mail.example.com:587\". Left out, the port is 587, 465 with tls = \"tls\", 25 with \"none\".",
    )
    .also(&["host", "smtp", "relay"]),
    key(
        "notify.*.tls",
        Takes::Text,
        Default("starttls"),
        "email only. \"starttls\" (refuses a server without it), \"tls\", or \"none\".",
    ),
    key("notify.*.user", Takes::Text, Optional, "email only. The name that the mail server knows.").also(&["username"]),
    key("notify.*.password", Takes::Secret, Optional, "email only. Its password."),
    key("notify.*.from", Takes::Text, Optional, "email only. Who writes: \"backups@example.com\"."),
    key("notify.*.to", Takes::Texts, Optional, "email only. To whom: [\"ops@example.com\"].").also(&["recipients"]),
    key(
        "notify.*.command",
        Takes::Texts,
        Optional,
        "command only. A program and its arguments, with facts in LIFEBOAT_… variables and the document on stdin.",
    )
    .also(&["exec", "argv"]),
    key("notify.*.timeout", Takes::Duration, Default("30s"), "command only. How long it may take."),
];

/// The source kinds that there are.
pub const KINDS: &[&str] = &["files", "sqlite", "postgres"];
/// The source kinds that are planned.
pub const KINDS_LATER: &[&str] = &["mysql", "command"];

/// The rows directly below a table: `job.*`, `job.*.drill.checks[]`, or nothing for the top.
pub fn below(table: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| match key.path.rsplit_once('.') {
        Some((parent, _)) => parent == table,
        None => table.is_empty(),
    })
}

/// The table as JSON: `{ schema_version, keys: [ { path, takes, need, only?, meaning } ] }`.
#[must_use]
pub fn schema_json() -> serde_json::Value {
    serde_json::json!({ "schema_version": 1, "keys": KEYS })
}
