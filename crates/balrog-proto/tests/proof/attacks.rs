//! Known attacks by class, what must come of them, and the tests that see to it: a test that was
//! renamed or removed is missed here.

use std::fs;
use std::path::Path;

/// The class, what it does and what must come of it, and its tests as `file::function` of `tests/`.
const ATTACKS: &[(&str, &[&str])] = &[
    // Two framings, or one that two readers take differently: 400 or 501, the connection closed,
    // what follows never read.
    (
        "request smuggling by Transfer-Encoding",
        &["http1_strict::framing", "http1_client::what_can_be_read_in_two_ways_is_refused", CORPUS, ANSWERS],
    ),
    ("request smuggling by Content-Length", &["http1_strict::framing", CORPUS, ANSWERS]),
    // Sizes, line ends, extensions, trailers: 400, and never a short body.
    (
        "chunks",
        &[
            "http1_strict::chunks",
            "http1_limits::sizes_of_a_chunked_body",
            "http1_server::a_cut_message_is_an_error",
            CORPUS,
        ],
    ),
    // Folds, bare CR, control characters, missing or double fields, targets, versions: 400.
    (
        "lines and fields",
        &["http1_strict::request_lines", "http1_strict::fields", "http1_strict::responses", CORPUS],
    ),
    // What follows an Upgrade is the next protocol's, or the next request, by what was answered.
    (
        "bytes behind an upgrade",
        &[
            "http1_exchange::protocols_are_switched_only_to_what_was_offered",
            "http1_exchange::a_tunnel_takes_over_with_what_came_behind_it",
            "http1_client::protocols_are_switched_only_if_asked",
            "websocket/handshake::frames_right_behind_the_handshake",
            "websocket/corpus::every_case_has_its_outcome",
        ],
    ),
    // Drained within limits, or the connection closed.
    (
        "bodies that nobody read",
        &[
            "http1_server::an_unread_body_is_drained_or_ends_the_connection",
            "http1_limits::what_is_drained",
            "http1_client::reuse_is_told",
        ],
    ),
    // In order, and none read while one is answered.
    ("pipelines without end", &["http1_exchange::pipelined_requests_wait_unread"]),
    // Refused when it is set, and nothing of it sent.
    (
        "splitting of requests and responses",
        &[
            "http1_server::response_splitting_is_refused_whole",
            "http1_client::an_unsound_request_is_not_sent",
        ],
    ),
    // Linear time, the same events, the same limits, however the bytes come.
    (
        "bytes one by one",
        &[
            "proof/linear::",
            "proof/partition::",
            "http1_limits::sizes_of_a_head",
            "http1_server::every_split_gives_the_same_events_and_answers",
        ],
    ),
    // Closed at their time-outs.
    ("slow peers", &["http1_limits::times", "websocket/time::silence_is_pinged_then_ends"]),
    // 1009, 1002, 1007; memory within the limit of a message.
    (
        "frames and messages",
        &[
            "websocket/server::violations_are_answered_with_their_code",
            "websocket/server::bad_text_fails_inside_its_frame",
            "websocket/limits::message",
            "websocket/limits::frame_length",
            "websocket/limits::fragments",
            "websocket/limits::floods",
            "websocket/deflate::a_bomb",
            "websocket/deflate::what_is_no_compressed_message",
        ],
    ),
    // An error before a byte is written.
    (
        "values that fit no message of PostgreSQL's",
        &[
            "postgres_commands::nothing_unsound_gets_into_a_batch",
            "postgres_commands::nothing_unsound_gets_into_a_start_up",
            "postgres_commands::commands_at_the_wrong_time_change_nothing",
            "postgres_hostile::limits_at_their_edges",
        ],
    ),
    // Parameters go beside the statement, never into it.
    (
        "quoting",
        &[
            "postgres_queries::one_round_trip_for_a_statement_with_parameters",
            "postgres_protocol::the_same_bytes_go_out",
        ],
    ),
    // Nothing less than what was required, no password in the clear unasked, a server that proves
    // that it knows the password, iterations within a limit.
    (
        "log-in made weaker",
        &[
            "postgres_login::logging_in_against_the_rules",
            "postgres_login::a_password_in_clear_text",
            "postgres_login::what_scram_is_bound_to",
            "postgres_login::a_server_that_only_pretends_to_know_the_password",
            "postgres_login::the_iterations_of_scram_at_the_limit",
            "postgres_server::channel_binding",
        ],
    ),
    // Nothing between the answer to the TLS request and the handshake; a cancel key of 4 to 256
    // bytes.
    (
        "TLS made weaker",
        &[
            "postgres_login::asking_for_tls",
            "postgres_login::protocol_3_2",
            "postgres_commands::a_cancel_request_is_not_answered",
        ],
    ),
    // An error, no panic, bounded memory.
    (
        "a hostile server of PostgreSQL",
        &[
            "postgres_hostile::lengths_that_cannot_be",
            "postgres_hostile::unknown_messages_are_refused_by_their_first_bytes",
            "postgres_hostile::answers_that_fit_no_question",
            "postgres_hostile::bodies_that_do_not_fit_their_message",
            "postgres_hostile::rows_that_do_not_have_what_they_say",
            "postgres_hostile::endless_notices_and_settings_cost_no_memory",
        ],
    ),
];

const CORPUS: &str = "proof/requests::every_case_has_its_outcome";
const ANSWERS: &str = "proof/answers::every_bad_answer_has_its_outcome";

#[test]
fn every_class_of_attacks_has_its_tests() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for (class, proofs) in ATTACKS {
        assert!(!proofs.is_empty(), "{class}");
        for proof in *proofs {
            let (file, function) = proof.split_once("::").unwrap();
            let text = fs::read_to_string(tests.join(format!("{file}.rs"))).unwrap_or_default();
            assert!(text.contains(&format!("#[test]\nfn {function}")), "{class}: there is no test {proof}");
        }
    }
}
