#![no_main]

balrog_fuzz::target!(ws_pair);
