//! strandline-raft
