//! strandline-core
