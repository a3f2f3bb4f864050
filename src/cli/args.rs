//! What was typed: clap's image of the command line, and nothing else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::domain::operation::Operation;

/// Encrypted backups on a schedule, kept and erased within a window, rehearsed and measured.
#[derive(Debug, Parser)]
#[command(name = "lifeboat", version, max_term_width = 100, propagate_version = true)]
#[command(after_help = "Start with `lifeboat demo`: the whole story on this machine, in one command.")]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command, before or after it.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The config [default: $LIFEBOAT_CONFIG, ./lifeboat.toml, /etc/lifeboat/lifeboat.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A file with the age identity that opens backups; may be given more than once [default: $LIFEBOAT_IDENTITY]
    #[arg(long, global = true, value_name = "FILE")]
    pub identity: Vec<PathBuf>,
    /// A vault by its name in the config, or by its url: then no config is needed
    #[arg(long, global = true, value_name = "NAME|URL")]
    pub vault: Option<String>,
    /// The vault's public signing key (RWQ...), where neither config nor identity file has it
    #[arg(long, global = true, value_name = "KEY")]
    pub trust: Option<String>,
    /// Print one JSON document on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Say nothing but results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// How the log on stderr is written: text, or json, an object a line
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT", hide_possible_values = true)]
    pub log_format: LogFormat,
    /// Say more on stderr; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Formats of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line an event, to read
    Text,
    /// A JSON object a line
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a config, the host's key, an identity and the vault; with a config there, make what is missing
    Init(InitArgs),
    /// The whole story on this machine: back up, drill, damage, repair, report
    Demo(DemoArgs),
    /// Look at the config
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look for what would go wrong, before it does
    Doctor(JobsArgs),
    /// Back up
    Backup(JobsArgs),
    /// List backups
    List(ListArgs),
    /// Show one backup: its sources, and with an identity its contents
    Show(ShowArgs),
    /// Restore a backup, or a part of it, into a folder or a database server
    Restore(RestoreArgs),
    /// Write a source's tar stream to stdout
    Cat(CatArgs),
    /// Rehearse a restore in a scratch folder, check it and take the time
    Drill(DrillArgs),
    /// Compare everything in the vault with its name and its signature
    Check(CheckArgs),
    /// Remove backups that have expired, and erase what no backup names any more
    Prune(PruneArgs),
    /// Copy backups, sealed as they are, to the second vault of their jobs
    Copy(CopyArgs),
    /// Go on without a backup whose manifest cannot be believed, or without manifests that are missing
    Quarantine(QuarantineArgs),
    /// Say at a glance whether the data is safe
    Status(StatusArgs),
    /// Say in full what was promised and what was measured
    Report(ReportArgs),
    /// Write down how to restore, with this config's names and the last drill's times: to print, and to put into a safe
    Runbook(RunbookArgs),
    /// Do by itself what the config has a schedule for, until it is asked to end
    Daemon(DaemonArgs),
    /// What runs by itself, and when: for people, for cron, for systemd
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Make or look at identities
    #[command(subcommand)]
    Key(KeyCommand),
    /// The hosts that may write into a vault; changing them needs the vault's offline key
    #[command(subcommand)]
    Host(HostCommand),
    /// Whom backups are sealed to; changing them needs the vault's offline key
    #[command(subcommand)]
    Recipient(RecipientCommand),
    /// The operational memory of this host
    #[command(subcommand)]
    Catalog(CatalogCommand),
    /// Tell whoever the config names
    #[command(subcommand)]
    Notify(NotifyCommand),
    /// Print a completion script
    Completions {
        /// For this shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a folder
    Man {
        /// The folder
        dir: PathBuf,
    },
    /// Run one SQL check, confined; called by `drill`
    #[command(hide = true)]
    ConfinedSql,
}

/// `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Where to put a new config and what belongs to it [default: the current folder]
    pub dir: Option<PathBuf>,
    /// Where the vault's offline key is, or is to be written
    #[arg(long, value_name = "FILE")]
    pub vault_key: Option<PathBuf>,
}

/// `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Use this folder's files (they are only read) instead of a made-up shop's
    #[arg(long, value_name = "DIR")]
    pub files: Option<PathBuf>,
    /// Use this SQLite database (it is only read) instead of a made-up shop's
    #[arg(long, value_name = "FILE")]
    pub sqlite: Option<PathBuf>,
    /// Where the demo may write; removed and made anew
    #[arg(long, value_name = "DIR", default_value = "lifeboat-demo")]
    pub dir: PathBuf,
}

/// `config ...`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the config, and whether its schedule can keep its promises
    Check,
    /// Print the config as it was understood, without secrets
    Show,
    /// List every key there is
    Schema,
}

/// Commands that take jobs.
#[derive(Debug, Args)]
pub struct JobsArgs {
    /// The jobs [default: all]
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
}

/// `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// One job's only
    #[arg(value_name = "JOB")]
    pub job: Option<String>,
}

/// `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// JOB, JOB@latest, JOB@2026-11-22T02:00, or an id or its beginning
    pub backup: String,
    /// List the files as well (needs an identity)
    #[arg(long)]
    pub files: bool,
}

/// `restore`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("target").required(true).args(["to", "into"])))]
pub struct RestoreArgs {
    /// JOB, JOB@latest, JOB@2026-11-22T02:00, or an id or its beginning
    pub backup: String,
    /// Restore below this folder: DIR/SOURCE/...
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Restore a source of kind postgres into this database (postgres://role@host/database), which must be missing or
    /// empty; its server's database `postgres` must let that role in
    #[arg(long, value_name = "URL", requires = "source")]
    pub into: Option<String>,
    /// This source only
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Only what matches this glob (of the path without its leading slash); with --into, only the rows of the tables
    /// that this means (schema.table, * for anything): into the table that is there, or into one that is made with its
    /// columns and checks alone; may be given more than once
    #[arg(long, value_name = "GLOB")]
    pub path: Vec<String>,
    /// Restore into a folder that is not empty, replacing what is in the way; with --into, drop the database first, or
    /// with --path empty the tables
    #[arg(long)]
    pub overwrite: bool,
    /// Make the roles that the server does not have, with the passwords that they had
    #[arg(help_heading = "With --into", long, requires = "into")]
    pub globals: bool,
    /// Everything becomes the property of the role that restores, without grants
    #[arg(help_heading = "With --into", long, requires = "into")]
    pub no_owner: bool,
    /// Connections that load, and indexes that are made at a time [default: one a core]
    #[arg(help_heading = "With --into", long, value_name = "N", requires = "into", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub jobs: Option<u32>,
    /// A file (mode 0600) with the password of the url's role; neither ~/.pgpass nor $PGPASSWORD is read
    #[arg(help_heading = "With --into", long, value_name = "FILE", requires = "into")]
    pub password_file: Option<PathBuf>,
    /// The folder of the server's programs (pg_restore), where they are in none of the usual ones
    #[arg(help_heading = "With --into", long, value_name = "DIR", requires = "into")]
    pub tools: Option<PathBuf>,
}

/// `cat`.
#[derive(Debug, Args)]
pub struct CatArgs {
    /// JOB, JOB@latest, JOB@2026-11-22T02:00, or an id or its beginning
    pub backup: String,
    /// The source
    #[arg(long, value_name = "NAME")]
    pub source: String,
}

/// `drill`.
#[derive(Debug, Args)]
pub struct DrillArgs {
    /// The jobs [default: all]
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
    /// latest, oldest, random, or an id or its beginning
    #[arg(long, value_name = "WHICH", default_value = "latest")]
    pub backup: String,
    /// Leave the scratch folder, and say where it is
    #[arg(long)]
    pub keep: bool,
}

/// `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The jobs [default: all]
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
    /// Open the data as well and compare it with the contents (needs an identity); of every backup's segments this
    /// percentage [default when given without a number: 100]
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, default_missing_value = "100", require_equals = true,
          value_parser = clap::value_parser!(u8).range(1..=100))]
    pub read_data: Option<u8>,
}

/// `prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// The jobs [default: all]
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
    /// Say what would be removed and why, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Go on although nothing ran for a long time: this machine's clock is right, it has not jumped
    #[arg(long)]
    pub after_pause: bool,
}

/// `copy`.
#[derive(Debug, Args)]
pub struct CopyArgs {
    /// The jobs [default: all that have a copy]
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
    /// The second vault, by its name in the config [default: each job's own, `to` in [job.NAME.copy]]
    #[arg(long, value_name = "VAULT")]
    pub to: Option<String>,
}

/// `quarantine`.
#[derive(Debug, Args)]
pub struct QuarantineArgs {
    /// A backup's id or its beginning, as `check` names it; or missing numbers of a job: JOB#5, JOB#5-7
    #[arg(value_name = "BACKUP|JOB#NUMBER")]
    pub what: String,
}

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The jobs [default: all]
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
    /// One line and an exit code of 0, 1, 2 or 3, as monitoring plugins speak
    #[arg(long, conflicts_with = "json")]
    pub nagios: bool,
    /// Every figure in Prometheus's text format
    #[arg(long, conflicts_with_all = ["json", "nagios"])]
    pub prometheus: bool,
    /// Where to write that: whole or not at all, for all to read, as node exporter's textfile collector wants it
    /// [default: stdout]
    #[arg(long, value_name = "FILE", requires = "prometheus")]
    pub output: Option<PathBuf>,
}

/// `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The jobs [default: all]
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
    /// How far back to look
    #[arg(long, value_name = "DURATION", default_value = "30d")]
    pub since: String,
    /// How to write it
    #[arg(long, value_enum, default_value_t = ReportFormat::Md)]
    pub format: ReportFormat,
    /// Where to write it [default: stdout]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `runbook`.
#[derive(Debug, Args)]
pub struct RunbookArgs {
    /// The jobs [default: all]
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
    /// Only how each job is restored, without the runbooks for what else may happen
    #[arg(long)]
    pub short: bool,
    /// Where to write it [default: stdout]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Formats of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// Markdown, to read
    Md,
    /// JSON, the record
    Json,
    /// One file of HTML, to open and to print
    Html,
}

/// `daemon`.
#[derive(Debug, Args)]
pub struct DaemonArgs {
    /// These operations alone, such as `drill` on a host that drills for another
    #[arg(long, value_name = "OPERATION,...", value_delimiter = ',')]
    pub only: Vec<Operation>,
}

/// `schedule ...`.
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// The next times of everything that has a schedule, on the config's clock and in UTC
    List {
        /// The jobs [default: all]
        #[arg(value_name = "JOB")]
        jobs: Vec<String>,
        /// How many times of each
        #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u16).range(1..=1000))]
        next: u16,
    },
    /// Print a file for /etc/cron.d
    Cron {
        /// The jobs [default: all]
        #[arg(value_name = "JOB")]
        jobs: Vec<String>,
        /// These operations alone, such as `drill` on a host that drills for another
        #[arg(long, value_name = "OPERATION,...", value_delimiter = ',')]
        only: Vec<Operation>,
        /// The zone of the clock that this host's cron reads [default: the config's, by CRON_TZ]
        #[arg(long, value_name = "ZONE")]
        clock: Option<String>,
    },
    /// Print systemd units: a service and timers for each operation, or the daemon's service
    Systemd {
        /// The jobs [default: all]
        #[arg(value_name = "JOB")]
        jobs: Vec<String>,
        /// These operations alone, such as `drill` on a host that drills for another
        #[arg(long, value_name = "OPERATION,...", value_delimiter = ',')]
        only: Vec<Operation>,
        /// The daemon's service, instead of timers
        #[arg(long)]
        daemon: bool,
        /// Write each unit into this folder, such as /etc/systemd/system
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
}

/// `notify ...`.
#[derive(Debug, Subcommand)]
pub enum NotifyCommand {
    /// Send a test to every channel and heartbeat, and print what each answered
    Test {
        /// This one only: a channel's name, or `heartbeat`
        name: Option<String>,
    },
    /// Look for what is overdue or not erased in time, and send what waits; for hosts without the daemon
    Send,
}

/// `key ...`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a new identity
    New {
        /// Where to write it; must not exist [default: stdout]
        file: Option<PathBuf>,
    },
    /// Print the public keys of an identity file
    Show {
        /// The file [default: that of --identity]
        file: Option<PathBuf>,
    },
}

/// `host ...`.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Let a host write; one that may already, more jobs
    Add {
        /// What it is called from now on; of no host of the vault before
        name: String,
        /// The public half of its key (RWQ...): `lifeboat init` prints it there
        #[arg(long, value_name = "KEY")]
        key: String,
        /// The jobs that it may write [default: all]
        #[arg(long, value_name = "JOB,...", value_delimiter = ',')]
        jobs: Vec<String>,
        /// The vault's offline key
        #[arg(long, value_name = "FILE")]
        vault_key: PathBuf,
    },
    /// Believe nothing any more that a host signs from now on
    Revoke {
        /// The host
        name: String,
        /// The last backup of a job to believe, by its number, 0 for none [default: the newest there is]
        #[arg(long, value_name = "JOB=SEQ")]
        last: Vec<String>,
        /// Since when its key may be another's: nothing from then on is believed [default: now]
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        /// The vault's offline key
        #[arg(long, value_name = "FILE")]
        vault_key: PathBuf,
    },
    /// List the hosts: their keys, jobs, times, and the newest backup of each job
    List,
}

/// `recipient ...`.
#[derive(Debug, Subcommand)]
pub enum RecipientCommand {
    /// Seal to one more from the next backup on: in the config, and approved in vault.json
    Add {
        /// Its public key
        #[arg(value_name = "AGE1...")]
        recipient: String,
        /// The vault's offline key; not needed where vault.json approves it already
        #[arg(long, value_name = "FILE")]
        vault_key: Option<PathBuf>,
    },
    /// Seal to one less from the next backup on
    Remove {
        /// Its public key
        #[arg(value_name = "AGE1...")]
        recipient: String,
        /// The vault's offline key; not needed where vault.json does not approve it any more
        #[arg(long, value_name = "FILE")]
        vault_key: Option<PathBuf>,
    },
    /// List them, as config and vault.json have them
    List,
}

/// `catalog ...`.
#[derive(Debug, Subcommand)]
pub enum CatalogCommand {
    /// Make the catalog anew from what the vault holds
    Rebuild,
}
