//! How a verb tells what it is doing, without printing: it calls a port, and whoever holds the terminal decides.

/// Takes progress. All methods may be called from any thread.
pub trait Progress: Send + Sync {
    /// A stage begins; `total_bytes` is known or not.
    fn begin(&self, stage: &str, total_bytes: Option<u64>);
    /// So many more bytes are done.
    fn advance(&self, bytes: u64);
    /// The stage is over.
    fn end(&self);
    /// Something that a person should read now, whole sentences.
    fn warn(&self, message: &str);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _stage: &str, _total_bytes: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn end(&self) {}
    fn warn(&self, message: &str) {
        tracing::warn!("{message}");
    }
}
