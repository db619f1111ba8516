//! Synchronous code in an async program of many threads: an axum application whose handlers call
//! what waits on balrog's own loop.
//!
//! `cargo run --bin in_axum -- [--mode MODE] [ADDRESS]`

use std::error::Error;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use balrog::net::UnixStream;
use balrog_examples::Arguments;

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { mode, rest } = Arguments::read()?;
    let address = rest.into_iter().next().unwrap_or_else(|| "127.0.0.1:8000".to_owned());
    let balrog = mode.start()?;
    let handler = move || async move {
        // A task of balrog's, awaited here: no thread of axum's is blocked meanwhile.
        let answer = match balrog.spawn(cook) {
            Ok(task) => task.await.map_err(io::Error::from).and_then(|dish| dish),
            Err(error) => Err(error),
        };
        answer.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    };
    let axum = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    axum.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        println!("listening on {}", listener.local_addr()?);
        axum::serve(listener, Router::new().route("/", get(handler))).await?;
        Ok(())
    })
}

/// Takes a while, and says so in a straight line.
fn cook() -> io::Result<String> {
    let (mut pot, mut plate) = UnixStream::pair()?;
    let mut stirring = balrog::spawn(move || {
        balrog::sleep_until(Instant::now() + Duration::from_millis(200))?;
        pot.write_all(b"soup")
    })?;
    let mut dish = String::new();
    plate.read_to_string(&mut dish)?;
    stirring.join()??;
    Ok(dish)
}
