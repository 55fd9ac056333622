//! strandline-node
