#![no_main]

balrog_fuzz::target!(pg_pair);
