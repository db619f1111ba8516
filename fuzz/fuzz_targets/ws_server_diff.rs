#![no_main]

balrog_fuzz::target!(ws_server_diff);
