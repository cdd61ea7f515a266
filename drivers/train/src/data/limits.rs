//! Bounds of what data files may hold.

/// Bytes of one line of text, JSON or a table. Longer ones are no lines but files of another kind.
pub const LINE_BYTES_MAX: usize = 64 << 20;

/// Bytes of one row of a table. A quoted cell may hold line ends, so a quote that was never meant takes all that follows.
pub const ROW_BYTES_MAX: usize = 64 << 20;

/// Bytes of text that are tokenised at once: enough for each call to be cheap, few enough to stay in caches.
pub const PIECE_BYTES: usize = 64 << 10;

/// Documents that are tokenised at once, in parallel.
pub const PIECES_AT_ONCE: usize = 64;

/// Batches that wait for the training step. One is being copied, one is ready; more hide a slow disk.
pub const BATCHES_AHEAD: usize = 4;

/// Labels of a classification.
pub const LABELS_MAX: usize = 65_536;

/// Bytes of a file of questions that is one object, which is read at once. SQuAD's own has 30 MB.
pub const QUESTIONS_BYTES_MAX: u64 = 1 << 30;

/// Bytes of one file that is fetched: the largest shards of text on hubs are below.
pub const DOWNLOAD_BYTES_MAX: u64 = 16 << 30;

/// Files of one split of a data set.
pub const SHARDS_MAX: usize = 10_000;
