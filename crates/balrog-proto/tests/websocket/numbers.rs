//! The numbers of the proofs.

#![allow(dead_code, unreachable_pub, reason = "it is written for others, too")]

include!("../proof/harness/numbers.rs");
