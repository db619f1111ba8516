//! What holds for every machine, whatever comes in: proven by example in every split, by
//! comparison with other implementations, by random operations and by replay of the fuzz
//! targets' corpora.

mod answers;
mod any_bytes;
mod attacks;
mod harness;
mod linear;
mod llhttp;
mod ops;
mod partition;
mod replay;
mod requests;
mod surface;
