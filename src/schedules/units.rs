//! systemd units: a service of the daemon, or a service and timers for each operation that has a schedule.
//!
//! Hardened as far as what they run allows. A drill gives what it restored a user, namespaces and a server of its own, and
//! so its unit, and that of a daemon that drills, keep the capabilities which that takes; the others keep to reading files
//! of every owner.

use std::fmt::Write as _;

use super::{Call, Due, handed_in, on_calendar, written};
use crate::config::Settings;
use crate::domain::operation::Operation;
use crate::domain::quantity::exact_duration;

/// Where credentials are looked for on this host: systemd's own place for them.
const CREDENTIALS: &str = "/etc/credstore";
/// What the daemon needs at most to end in good order, and some more.
const STOP_SECONDS: u64 = 90;
/// The daemon feeds the watchdog from the loop, twice in this time.
const WATCHDOG_SECONDS: u64 = 120;

/// A unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// The file's name.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// The daemon's service.
#[must_use]
pub fn daemon(settings: &Settings, due: &[Due<'_>], call: &Call) -> Unit {
    let operations = operations(due);
    let mut text = String::from(
        "# Backs up, prunes, checks and drills when the config says so. Instead of timers, not beside them.\n[Unit]\n\
         Description=Lifeboat\nDocumentation=man:lifeboat-daemon(1)\n",
    );
    text.push_str(
        "Wants=network-online.target\nAfter=network-online.target time-sync.target\n\n[Service]\nType=notify\n",
    );
    let _ = writeln!(text, "ExecStart={} daemon --config {}", word(&call.program), config(settings));
    let _ = writeln!(text, "ExecReload=/bin/kill -HUP $MAINPID\nRestart=on-failure\nRestartSec=10s");
    let _ = writeln!(
        text,
        "# Fed by the loop that starts things: a loop that hangs is killed and started anew, and forgets nothing."
    );
    let _ = writeln!(text, "WatchdogSec={WATCHDOG_SECONDS}s\nTimeoutStopSec={STOP_SECONDS}s");
    text.push_str(&sandbox(settings, &operations));
    text.push_str("\n[Install]\nWantedBy=multi-user.target\n");
    Unit { name: "lifeboat.service".to_owned(), text }
}

/// Services and timers, for hosts without the daemon.
#[must_use]
pub fn timers(settings: &Settings, due: &[Due<'_>], call: &Call) -> Vec<Unit> {
    let mut units: Vec<Unit> = operations(due).into_iter().map(|of| service(settings, of, call)).collect();
    units.extend(due.iter().map(|due| timer(settings, due, call)));
    units
}

fn operations(due: &[Due<'_>]) -> Vec<Operation> {
    Operation::ALL.into_iter().filter(|known| due.iter().any(|due| due.task.operation == *known)).collect()
}

fn service(settings: &Settings, operation: Operation, call: &Call) -> Unit {
    let mut text = format!(
        "# lifeboat-{operation}@JOB.timer starts it.\n[Unit]\nDescription=Lifeboat {operation} of %i\n\
         Documentation=man:lifeboat-{operation}(1)\nWants=network-online.target\nAfter=network-online.target\n\n\
         [Service]\nType=oneshot\n"
    );
    let _ = writeln!(text, "ExecStart={} {operation} --config {} %i", word(&call.program), config(settings));
    text.push_str(
        "# Partial (3) is not well either: systemd calls it failed, and OnFailure= of your own can tell you.\n",
    );
    text.push_str("Nice=10\nIOSchedulingClass=idle\n");
    text.push_str(&sandbox(settings, &[operation]));
    Unit { name: format!("lifeboat-{operation}@.service"), text }
}

fn timer(settings: &Settings, due: &Due<'_>, call: &Call) -> Unit {
    let (job, operation) = (&due.task.job, due.task.operation);
    let mut text = format!(
        "# {} in {}. systemd leaves out a time that the clocks jump over: such days have lines of their own.\n[Unit]\n\
         Description=Lifeboat {operation} of {job}\n\n[Timer]\n",
        due.schedule, settings.timezone
    );
    for line in on_calendar(due.schedule, settings.timezone, call.now) {
        let _ = writeln!(text, "OnCalendar={line}");
    }
    text.push_str("Persistent=true\nAccuracySec=1s\n");
    if !settings.daemon.jitter.is_zero() {
        let _ = writeln!(text, "RandomizedDelaySec={}\nFixedRandomDelay=true", exact_duration(settings.daemon.jitter));
    }
    text.push_str("\n[Install]\nWantedBy=timers.target\n");
    Unit { name: format!("lifeboat-{operation}@{job}.timer"), text }
}

/// What a service may do.
fn sandbox(settings: &Settings, operations: &[Operation]) -> String {
    let mut text = String::new();
    let (credentials, variables) = handed_in(settings, operations);
    for name in credentials {
        let _ = writeln!(text, "LoadCredential={name}:{CREDENTIALS}/{name}");
    }
    for name in variables {
        let _ =
            writeln!(text, "# The config reads the variable {name}: name an EnvironmentFile= (mode 600) that sets it.");
    }
    text.push_str("UMask=0077\nKeyringMode=private\nLockPersonality=yes\nPrivateMounts=yes\n");
    text.push_str("ProtectSystem=strict\nProtectHome=read-only\nProtectClock=yes\nProtectControlGroups=yes\nProtectHostname=yes\n");
    text.push_str(
        "ProtectKernelLogs=yes\nProtectKernelModules=yes\nRestrictRealtime=yes\nSystemCallArchitectures=native\n",
    );
    // What does not exist yet is made by the program, in a folder that must then be writable.
    let folders: Vec<String> = written(settings, operations).iter().map(|path| path_word(path)).collect();
    let _ = writeln!(text, "ReadWritePaths={}", folders.join(" "));
    let families = "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6";
    if operations.contains(&Operation::Drill) {
        text.push_str("# A drill runs what it restored as another user, in namespaces, with a server of its own.\n");
        text.push_str("CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_IPC_OWNER \\\n");
        text.push_str(
            "    CAP_KILL CAP_MKNOD CAP_SETFCAP CAP_SETGID CAP_SETPCAP CAP_SETUID CAP_SYS_ADMIN CAP_SYS_RESOURCE\n",
        );
        text.push_str("RuntimeDirectory=lifeboat\nRuntimeDirectoryMode=0700\nRuntimeDirectoryPreserve=yes\n");
        // unshare and setpriv talk to the kernel by netlink.
        let _ = writeln!(text, "{families} AF_NETLINK");
    } else {
        text.push_str("CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER\n");
        text.push_str(
            "NoNewPrivileges=yes\nMemoryDenyWriteExecute=yes\nPrivateDevices=yes\nProtectKernelTunables=yes\n",
        );
        text.push_str("ProtectProc=invisible\nProcSubset=pid\nRestrictNamespaces=yes\nRestrictSUIDSGID=yes\n");
        let _ = writeln!(text, "{families}");
        text.push_str(
            "SystemCallFilter=@system-service\nSystemCallFilter=~@privileged @resources\nSystemCallErrorNumber=EPERM\n",
        );
    }
    if !reads_temporary(settings) {
        text.push_str("PrivateTmp=yes\n");
    }
    text
}

/// Whether something to back up, a vault or the state lies where a service with a /tmp of its own does not see it. A drill's
/// scratch folder may be its own.
fn reads_temporary(settings: &Settings) -> bool {
    let is_temporary = |path: &std::path::Path| path.starts_with("/tmp") || path.starts_with("/var/tmp");
    let sources = settings.jobs.values().flat_map(|job| &job.sources).any(|source| match &source.kind {
        crate::config::SourceKind::Files(files) => {
            files.paths.iter().any(|path| is_temporary(path) || path.as_os_str() == "/")
        }
        crate::config::SourceKind::Sqlite(sqlite) => is_temporary(&sqlite.path),
        crate::config::SourceKind::Postgres(_) => false,
    });
    let vaults = settings.vaults.values().any(|vault| match &vault.url {
        crate::config::VaultUrl::Folder(folder) => is_temporary(folder),
        crate::config::VaultUrl::S3 { .. } => false,
    });
    sources || vaults || is_temporary(&settings.state_dir) || is_temporary(&settings.file)
}

fn config(settings: &Settings) -> String {
    word(&settings.file.display().to_string())
}

/// A word of a command line as systemd reads it.
fn word(text: &str) -> String {
    let text = text.replace('%', "%%").replace('$', "$$");
    if text.contains([' ', '"', '\'', '\\', '\t']) {
        format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
    } else {
        text
    }
}

/// A path in a list of paths; one that does not exist is passed over.
fn path_word(text: &str) -> String {
    let text = format!("-{}", text.replace('%', "%%"));
    if text.contains([' ', '\'', '\t']) { format!("\"{text}\"") } else { text }
}
