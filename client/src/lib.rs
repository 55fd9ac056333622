//! strandline-client
