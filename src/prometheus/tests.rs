//! Scripted HTTP and whole snapshots.
