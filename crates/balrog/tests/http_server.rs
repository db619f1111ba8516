//! The HTTP server, each test in every mode.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use balrog::http::server::{Body, Handle, IntoResponse, Request, Response, Server};
use balrog::net::{TcpListener, TcpStream};
use balrog::{JoinHandle, Runtime, http, sleep_until, spawn};

const SOON: Duration = Duration::from_millis(50);

fn in_every_mode(body: fn() -> io::Result<()>) {
    for runtime in Runtime::all() {
        runtime.run(body).unwrap().unwrap_or_else(|error| panic!("{runtime}: {error}"));
    }
}

/// A server that runs beside the test.
struct Running {
    address: SocketAddr,
    handle: Handle,
    task: JoinHandle<io::Result<()>>,
}

impl Running {
    fn new<R: IntoResponse>(
        server: Server,
        handler: impl Fn(&mut Request<'_>) -> R + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, handle) = (listener.local_addr()?, server.handle());
        Ok(Self { address, handle, task: spawn(move || server.serve(listener, handler))? })
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let deadline = Some(Instant::now() + Duration::from_secs(10));
        let mut stream = TcpStream::connect("127.0.0.1", self.address.port(), deadline)?;
        stream.timeouts.deadline = deadline;
        Ok(stream)
    }

    /// Everything that is answered to `bytes` until the server closes.
    fn ask(&self, bytes: &[u8]) -> io::Result<String> {
        let mut stream = self.connect()?;
        stream.write_all(bytes)?;
        read_all(stream)
    }

    fn stop(mut self) -> io::Result<()> {
        self.handle.stop();
        self.task.join()?
    }
}

fn read_all(mut stream: TcpStream) -> io::Result<String> {
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn read_until(stream: &mut TcpStream, end: &str) -> io::Result<String> {
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.push(byte[0]);
    }
    Ok(String::from_utf8(answer).unwrap())
}

fn body_of(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

fn site(request: &mut Request<'_>) -> io::Result<Response> {
    Ok(match request.path() {
        "/hello" => "hello".into_response(),
        "/echo" => request.body(1 << 20)?.into_response(),
        "/count" => io::copy(request, &mut io::sink())?.to_string().into_response(),
        "/sized" => Body::sized(&b"0123456789"[..], 4).into_response(),
        "/short" => Body::sized(&b"01"[..], 4).into_response(),
        "/pieces" => Body::writer(|out| {
            write!(out, "one")?;
            out.flush()?;
            write!(out, "two")
        })
        .into_response(),
        "/fails" => Body::writer(|out| {
            out.write_all(b"some")?;
            Err(io::Error::other("on purpose"))
        })
        .into_response(),
        "/slow" => {
            sleep_until(Instant::now() + Duration::from_millis(600))?;
            "slow".into_response()
        }
        "/panic" => panic!("on purpose"),
        "/none" => ::http::StatusCode::NO_CONTENT.into_response(),
        "/fields" => {
            assert_eq!(request.header("x-one"), Some("1"));
            assert_eq!(request.headers()["X-One"], "1");
            format!("{} {} {}", request.uri(), request.query(), request.headers().len()).into_response()
        }
        "/up" => ::http::Response::builder()
            .status(101)
            .header("Upgrade", "shout")
            .header("Connection", "Upgrade")
            .body(Body::upgrade(|mut stream| {
                let mut line = [0; 5];
                stream.read_exact(&mut line).unwrap();
                stream.write_all(&line.to_ascii_uppercase()).unwrap();
            }))
            .map_err(io::Error::other)?,
        _ => ::http::StatusCode::NOT_FOUND.into_response(),
    })
}

#[test]
fn requests_are_answered_one_after_the_other() {
    in_every_mode(|| {
        let running = Running::new(Server::new(), site)?;
        let mut stream = running.connect()?;
        for _ in 0..3 {
            stream.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")?;
            let head = read_until(&mut stream, "\r\n\r\n")?;
            assert!(head.starts_with("HTTP/1.1 200 OK\r\nDate: ") && head.contains("Content-Length: 5\r\n"));
            assert!(head.contains("content-type: text/plain; charset=utf-8\r\n"), "{head}");
            assert_eq!(read_until(&mut stream, "hello")?, "hello");
        }
        stream.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nsoup")?;
        read_until(&mut stream, "\r\n\r\nsoup")?;
        // HEAD and 204 have no body; the next response is where it belongs.
        let both = "HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\n\r\n\
                    GET /fields?a=b HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nConnection: close\r\n\r\n";
        stream.write_all(both.as_bytes())?;
        let answers = read_all(stream)?;
        let parts: Vec<&str> = answers.split("\r\n\r\n").collect();
        assert!(parts[0].contains("Content-Length: 5"), "{answers}");
        assert!(parts[1].starts_with("HTTP/1.1 204 No Content"), "{answers}");
        assert_eq!(parts[3], "/fields?a=b a=b 3");
        running.stop()
    });
}

#[test]
fn bodies_of_every_kind() {
    in_every_mode(|| {
        let running = Running::new(Server::new(), site)?;
        let get = |path: &str| {
            running.ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes())
        };
        assert!(get("/sized")?.ends_with("Connection: close\r\n\r\n0123"));
        assert_eq!(body_of(&get("/pieces")?), "3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n");
        // What broke off does not pass for the whole.
        assert_eq!(body_of(&get("/fails")?), "4\r\nsome\r\n");
        let short = get("/short")?;
        assert!(short.contains("Content-Length: 4\r\n") && body_of(&short) == "01", "{short}");
        // To HTTP/1.0, the end of the connection is the end of the body.
        assert_eq!(body_of(&running.ask(b"GET /pieces HTTP/1.0\r\n\r\n")?), "onetwo");
        running.stop()
    });
}

#[test]
fn a_large_body_comes_in_and_expectations_are_met() {
    in_every_mode(|| {
        let running = Running::new(Server::new(), site)?;
        let mut stream = running.connect()?;
        stream.write_all(
            b"POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n",
        )?;
        assert_eq!(read_until(&mut stream, "\r\n\r\n")?, "HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(&vec![b'x'; 1_000_000])?;
        read_until(&mut stream, "\r\n\r\n1000000")?;
        stream.write_all(
            b"POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
              3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n",
        )?;
        read_until(&mut stream, "\r\n\r\n7")?;
        running.stop()
    });
}

#[test]
fn trouble_stays_with_its_connection() {
    in_every_mode(|| {
        let running = Running::new(Server::new(), site)?;
        let bad = running.ask(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")?;
        assert!(bad.starts_with("HTTP/1.1 400 "), "{bad}");
        let panicked = running.ask(b"GET /panic HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        assert!(panicked.starts_with("HTTP/1.1 500 "), "{panicked}");
        // A body that is cut: the handler's error, and the end of the connection.
        let mut stream = running.connect()?;
        stream.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nfour")?;
        drop(stream);
        let fine = running.ask(b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        assert_eq!(body_of(&fine), "hello");
        running.stop()
    });
}

#[test]
fn a_slow_head_is_timed_out_and_an_idle_connection_closed() {
    in_every_mode(|| {
        let mut limits = balrog_proto::http1::Limits::default();
        (limits.head_time, limits.first_time) = (Some(SOON), Some(4 * SOON));
        let running = Running::new(Server::new().limits(limits), site)?;
        assert!(running.ask(b"GET / HT")?.starts_with("HTTP/1.1 408 "));
        assert_eq!(running.ask(b"")?, "");
        running.stop()
    });
}

#[test]
fn another_protocol_takes_over_with_what_came_early() {
    in_every_mode(|| {
        let running = Running::new(Server::new(), site)?;
        let asked = b"GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: shout\r\n\r\nhel";
        let mut stream = running.connect()?;
        stream.write_all(asked)?;
        let head = read_until(&mut stream, "\r\n\r\n")?;
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        stream.write_all(b"lo")?;
        assert_eq!(read_all(stream)?, "HELLO");
        running.stop()
    });
}

#[test]
fn a_server_that_stops_finishes_what_runs() {
    in_every_mode(|| {
        let running = Running::new(Server::new(), site)?;
        let (idle, mut busy) = (running.connect()?, running.connect()?);
        busy.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")?;
        while running.handle.connections() < 2 {
            sleep_until(Instant::now() + Duration::from_millis(5))?;
        }
        sleep_until(Instant::now() + SOON)?;
        let mut reader = spawn(move || read_all(busy))?;
        let begun = Instant::now();
        running.stop()?;
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        let answer = reader.join()??;
        assert!(answer.contains("Connection: close\r\n") && answer.ends_with("slow"), "{answer}");
        assert_eq!(read_all(idle)?, "");
        Ok(())
    });
}

/// Waits until `count` connections have no task.
fn until_parked(handle: &Handle, count: usize) -> io::Result<()> {
    let begun = Instant::now();
    while handle.parked() != count {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} are parked", handle.parked());
        sleep_until(Instant::now() + SOON)?;
    }
    Ok(())
}

#[test]
fn idle_connections_have_no_task_and_go_on() {
    in_every_mode(|| {
        const MANY: usize = 300;
        if !balrog::in_task() {
            return Ok(()); // A thread stays one.
        }
        let running = Running::new(Server::new(), site)?;
        let mut streams = (0..MANY).map(|_| running.connect()).collect::<io::Result<Vec<_>>>()?;
        until_parked(&running.handle, MANY)?;
        for round in 0..2 {
            for stream in &mut streams {
                stream.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")?;
                read_until(stream, "\r\n\r\nhello")?;
                // Half a head does not make it idle.
                if round == 1 {
                    stream.write_all(b"GET /he")?;
                }
            }
            until_parked(&running.handle, if round == 0 { MANY } else { 0 })?;
        }
        for stream in &mut streams {
            stream.write_all(b"llo HTTP/1.1\r\nHost: a\r\n\r\n")?;
            read_until(stream, "\r\n\r\nhello")?;
        }
        until_parked(&running.handle, MANY)?;
        // Some go, the others are closed by the server's end.
        streams.truncate(MANY / 2);
        until_parked(&running.handle, MANY / 2)?;
        let begun = Instant::now();
        running.stop()?;
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        streams.into_iter().try_for_each(|stream| read_all(stream).map(|rest| assert_eq!(rest, "")))
    });
}

#[test]
fn a_parked_connection_is_closed_when_its_time_is_over() {
    in_every_mode(|| {
        let mut limits = balrog_proto::http1::Limits::default();
        limits.idle_time = Some(8 * SOON);
        let running = Running::new(Server::new().limits(limits), site)?;
        let mut stream = running.connect()?;
        let begun = Instant::now();
        stream.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")?;
        assert!(read_all(stream)?.ends_with("hello"));
        assert!(begun.elapsed() >= 8 * SOON);
        running.stop()
    });
}

#[test]
fn more_connections_than_there_may_be_wait() {
    in_every_mode(|| {
        let running = Running::new(Server::new().connections(2), site)?;
        let mut tasks = Vec::new();
        for _ in 0..6 {
            let mut stream = running.connect()?;
            tasks.push(spawn(move || {
                stream.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
                read_all(stream)
            })?);
        }
        for mut task in tasks {
            assert_eq!(body_of(&task.join()??), "hello");
        }
        running.stop()
    });
}

#[test]
fn our_client_talks_to_it() {
    in_every_mode(|| {
        let running = Running::new(Server::new(), site)?;
        let request = http::Request::get("127.0.0.1", running.address.port(), "/pieces");
        for _ in 0..3 {
            let mut response = http::Client.send(&request, b"").map_err(io::Error::other)?;
            assert_eq!(response.read_to_end(100).map_err(io::Error::other)?, b"onetwo");
        }
        running.stop()
    });
}
