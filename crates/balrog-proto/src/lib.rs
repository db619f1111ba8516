//! Sans-IO protocol machines.
#![forbid(unsafe_code)]
