#![no_main]

balrog_fuzz::target!(pg_frontend_split);
