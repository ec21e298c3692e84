//! Tests of the web as a whole.
