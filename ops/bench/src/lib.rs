//! Programs that measure Strandline, and what they share. Figures and how they were taken: `RESULTS.md`.

pub mod procs;
