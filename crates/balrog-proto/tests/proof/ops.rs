//! Rows of commands and events against a model of what has to come of them.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::harness::{backend, conversation, exchange, server_model};

/// The same cases in every run; other ones are for the fuzzer to find.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x5eed),
        ..ProptestConfig::with_cases(400)
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn http_exchanges(bytes in vec(any::<u8>(), 0..160)) {
        exchange::carry_out(&bytes);
    }

    #[test]
    fn http_server_commands(bytes in vec(any::<u8>(), 0..240)) {
        server_model::run(&bytes);
    }

    #[test]
    fn websocket_conversations(bytes in vec(any::<u8>(), 0..160)) {
        conversation::hold(&bytes);
    }

    #[test]
    fn postgres_sessions(bytes in vec(any::<u8>(), 0..160)) {
        backend::hold_session(&bytes);
    }
}
