//! The only place that spawns. Every task has a parent that can wait for it, and a panic ends one task only.
