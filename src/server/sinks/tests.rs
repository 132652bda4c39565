//! Tests of where sinks go on.
