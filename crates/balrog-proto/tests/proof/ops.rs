//! Rows of commands and events against a model of what has to come of them.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::harness::{exchange, server_model};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn http_exchanges(bytes in vec(any::<u8>(), 0..160)) {
        exchange::carry_out(&bytes);
    }

    #[test]
    fn http_server_commands(bytes in vec(any::<u8>(), 0..240)) {
        server_model::run(&bytes);
    }
}
