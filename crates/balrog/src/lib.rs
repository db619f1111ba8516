//! Sync-looking network I/O.
