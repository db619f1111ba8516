#![no_main]

balrog_fuzz::target!(h1_server_diff);
