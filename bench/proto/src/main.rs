//! How near balrog-proto comes to the limit, path by path: `make bench-proto`.
//!
//! A row is two functions over the same bytes, ours and the limit's, run in turns in one
//! process; the shortest time of each counts, and their ratio is the figure. What is slow
//! because the machine is busy is slow for both.
//!
//! A protocol has a file with a function `rows`. `--count NAME N` runs our side of a row N times
//! and nothing else, for the instruction counts of `make bench-proto-gate`.

mod http1;
mod measure;
mod postgres;
mod websocket;

use measure::Row;

fn rows() -> Vec<Row> {
    [http1::rows(), websocket::rows(), postgres::rows()].into_iter().flatten().collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--list"] => rows().iter().for_each(|row| println!("{}", row.name)),
        ["--count", name, n] => {
            let n = n.parse().expect("a number of runs");
            let mut row = rows().into_iter().find(|row| row.name == name).expect("the name of a row");
            (0..n).for_each(|_| row.ours.run());
        }
        [] => measure::table(rows(), ""),
        [only] => measure::table(rows(), only),
        _ => panic!("arguments: [PART OF A NAME] | --list | --count NAME N"),
    }
}
