//! Entry points for coverage-guided fuzzing.
