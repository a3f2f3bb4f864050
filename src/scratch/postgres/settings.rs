//! The settings of a throw-away server. They stand on its command line, where nothing that is restored into it (an
//! ALTER SYSTEM, a postgresql.auto.conf) can change them.

use super::{Durability, PORT, ServerOptions};

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

/// Every setting that is not the server's own default, its socket's folder aside.
pub(super) fn settings(options: &ServerOptions<'_>) -> Vec<(String, String)> {
    let memory = options.memory_bytes;
    let mut all = vec![
        // Nobody is reached by it, and nobody reaches it but through the socket.
        ("listen_addresses", String::new()),
        ("port", PORT.to_string()),
        ("unix_socket_permissions", "0700".to_owned()),
        ("max_connections", options.max_connections.to_string()),
        // What would be left behind by a killed server: with these two, nothing but files in its folder.
        ("shared_memory_type", "mmap".to_owned()),
        ("dynamic_shared_memory_type", "mmap".to_owned()),
        ("shared_buffers", mebibytes((memory / 2).clamp(16 * MIB, 8 * GIB))),
        // Several indexes are built at a time.
        ("maintenance_work_mem", mebibytes((memory / 8).clamp(64 * MIB, 2 * GIB))),
        // A loader may lock all tables of a schema at once.
        ("max_locks_per_transaction", "256".to_owned()),
        // Nothing that acts on its own: no jobs that the source's cron extension would start, no archive.
        ("shared_preload_libraries", String::new()),
        ("archive_mode", "off".to_owned()),
        ("max_logical_replication_workers", "0".to_owned()),
        ("jit", "off".to_owned()),
        ("timezone", "UTC".to_owned()),
        ("log_timezone", "UTC".to_owned()),
        // One file, made by us. Statements carry data, and data does not belong into a report.
        ("log_destination", "stderr".to_owned()),
        ("logging_collector", "off".to_owned()),
        ("log_min_messages", "warning".to_owned()),
        ("log_min_error_statement", "panic".to_owned()),
        ("log_error_verbosity", "terse".to_owned()),
        ("log_statement", "none".to_owned()),
    ];
    match options.durability {
        Durability::Off => all.extend([
            ("fsync", "off".to_owned()),
            ("full_page_writes", "off".to_owned()),
            ("synchronous_commit", "off".to_owned()),
            ("autovacuum", "off".to_owned()),
            ("wal_level", "minimal".to_owned()),
            ("max_wal_senders", "0".to_owned()),
            ("wal_init_zero", "off".to_owned()),
            ("wal_recycle", "off".to_owned()),
            // A checkpoint in mid-load would write pages that are written again. The log's size is bounded all the
            // same: it lies on the scratch disk beside the data.
            ("max_wal_size", mebibytes(memory.saturating_mul(4).clamp(4 * GIB, 16 * GIB))),
            ("checkpoint_timeout", "1h".to_owned()),
            ("bgwriter_lru_maxpages", "0".to_owned()),
            ("log_checkpoints", "off".to_owned()),
        ]),
        Durability::AsInProduction => {
            all.push(("max_wal_size", mebibytes(memory.clamp(GIB, 8 * GIB))));
        }
    }
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn mebibytes(bytes: u64) -> String {
    format!("{}MB", bytes / MIB)
}
