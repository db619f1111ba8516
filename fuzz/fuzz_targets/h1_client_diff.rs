#![no_main]

balrog_fuzz::target!(h1_client_diff);
