//! What the fuzz targets do with their bytes: the tests of `balrog-proto` say it, and replay every
//! corpus on a stable compiler, without a fuzzer.
#![forbid(unsafe_code)]

#[path = "../../crates/balrog-proto/tests/proof/harness/mod.rs"]
pub mod harness;

/// A binary that fuzzes the target of this name.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $crate::harness::targets::$name(bytes));
    };
}
