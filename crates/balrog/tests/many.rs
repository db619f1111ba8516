//! Ten thousand connections at once, all of them kept and answered on one thread, in every mode.

#[path = "support/until.rs"]
mod until;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use balrog::http::server::{Request, Server};
use balrog::net::{Listen, TcpListener};
use balrog::{Runtime, offload, sleep_until, spawn};
use rustix::process::{Resource, getrlimit, setrlimit};

use until::{descriptors, until};

const MANY: usize = 10_000;
/// A thread each, in blocking mode.
const THREADS: usize = 200;
/// What a process needs of descriptors besides.
const BESIDES: usize = 200;
/// Names the server in the environment of the process that is its clients.
const SERVER: &str = "BALROG_MANY";

/// As many descriptors as the process may have; whether they suffice.
fn raise_limit() -> bool {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).is_ok()
        && limit.current.is_none_or(|most| most >= (MANY + BESIDES) as u64)
}

/// The clients: a process of their own, since there are as many descriptors again.
struct Clients(Child, BufReader<std::process::ChildStdout>);

impl Clients {
    fn begin(name: &str, port: u16, count: usize) -> io::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--exact", name, "--nocapture"])
            .env(SERVER, format!("{port} {count}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(process.stdout.take().unwrap());
        Ok(Self(process, output))
    }

    /// Has them do the next thing, and waits until they have.
    fn go_on(&mut self) -> io::Result<()> {
        writeln!(self.0.stdin.as_mut().unwrap())?;
        self.await_word()
    }

    fn await_word(&mut self) -> io::Result<()> {
        let mut line = String::new();
        while !line.contains("done") {
            line.clear();
            assert!(self.1.read_line(&mut line)? > 0, "the clients failed");
        }
        Ok(())
    }
}

/// What the process of the clients does.
fn be_clients(order: &str) -> io::Result<()> {
    assert!(raise_limit());
    let (port, count) = order.split_once(' ').unwrap();
    let (port, count): (u16, usize) = (port.parse().unwrap(), count.parse().unwrap());
    let mut streams = (0..count)
        .map(|_| {
            let stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            Ok(stream)
        })
        .collect::<io::Result<Vec<_>>>()?;
    println!("done");
    let mut line = String::new();
    for _ in 0..2 {
        io::stdin().read_line(&mut line)?;
        // All at once: nobody is read from before everybody has asked.
        for (number, stream) in streams.iter_mut().enumerate() {
            write!(stream, "GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n")?;
        }
        for (number, stream) in streams.iter_mut().enumerate() {
            let mut answer = Vec::new();
            let expected = format!("\r\n\r\n/{number}.");
            while !answer.ends_with(expected.as_bytes()) {
                let mut piece = [0; 512];
                let n = stream.read(&mut piece)?;
                assert!(n > 0, "{}", String::from_utf8_lossy(&answer));
                answer.extend_from_slice(&piece[..n]);
            }
            assert!(answer.starts_with(b"HTTP/1.1 200 "));
        }
        println!("done");
    }
    io::stdin().read_line(&mut line)?;
    Ok(())
}

fn hold(name: &'static str, many: usize) -> io::Result<()> {
    let count = if balrog::in_task() { many } else { many.min(THREADS) };
    let server = Server::new().connections(count + 10);
    let listener: TcpListener = Listen { backlog: 4096, ..Listen::default() }.tcp("127.0.0.1:0")?;
    let (port, handle) = (listener.local_addr()?.port(), server.handle());
    let mut task =
        spawn(move || server.serve(listener, |request: &mut Request<'_>| format!("{}.", request.path())))?;
    // What a runtime opens at its first wait stays open.
    sleep_until(Instant::now() + Duration::from_millis(1))?;
    let before = descriptors();
    let mut clients = offload(move || Clients::begin(name, port, count), None)??;
    let next = |mut clients: Clients, go_on: bool| -> io::Result<Clients> {
        let work = move || if go_on { clients.go_on() } else { clients.await_word() }.map(|()| clients);
        offload(work, None)?
    };
    clients = next(clients, false)?;
    until("all are connected", || handle.connections() == count)?;
    for _ in 0..2 {
        clients = next(clients, true)?;
        // Nobody is lost by it, and nobody who is idle has a task.
        assert_eq!(handle.connections(), count);
        if balrog::in_task() {
            until("all are idle", || handle.parked() == count)?;
        }
    }
    // They leave, all at once.
    let leave = move || {
        let Clients(mut process, _output) = clients;
        drop(process.stdin.take());
        process.wait()
    };
    let status = offload(leave, None)??;
    assert!(status.success());
    until("nobody is connected", || handle.connections() == 0)?;
    until("no descriptor is left", || descriptors() <= before)?;
    handle.stop();
    task.join()?
}

#[test]
fn ten_thousand_connections_are_kept_and_answered() {
    if let Ok(order) = std::env::var(SERVER) {
        return be_clients(&order).unwrap();
    }
    // A machine that forbids so many descriptors sees fewer.
    let many = if raise_limit() { MANY } else { THREADS };
    for runtime in Runtime::all() {
        let begun = Instant::now();
        let body = move || hold("ten_thousand_connections_are_kept_and_answered", many);
        runtime.run(body).unwrap().unwrap_or_else(|error| panic!("{runtime}: {error}"));
        println!("{runtime}: {:?}", begun.elapsed());
    }
}
