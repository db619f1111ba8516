//! Each example as its user runs it, in every mode.

#[path = "../../../crates/balrog/tests/support/postgres.rs"]
mod postgres;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use balrog::Runtime;
use balrog::http::StatusCode;
use balrog::http::server::{IntoResponse, Request, Server as HttpServer};
use tungstenite::Message;

/// An example that listens, until this is dropped.
struct Running {
    process: Child,
    address: SocketAddr,
}

impl Running {
    fn new(program: &str, mode: &Runtime, arguments: &[&str]) -> Self {
        let mut process = Command::new(program)
            .args(["--mode", &mode.to_string()])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().parse().unwrap();
        Self { process, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// The status and the body of an answer.
    fn ask(&self, request: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = self.connect();
        let head = format!(
            "{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
        (status, answer[end + 4..].to_vec())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn chat() {
    for mode in Runtime::all() {
        let running = Running::new(env!("CARGO_BIN_EXE_chat"), mode, &["127.0.0.1:0"]);
        let join = |room: &str| {
            let url = format!("ws://{}/{room}", running.address);
            let (mut ws, _) = tungstenite::client(url, running.connect()).unwrap();
            let welcome = ws.read().unwrap().to_string();
            (ws, welcome)
        };
        let mut kitchen: Vec<_> = (1..=10)
            .map(|number| {
                let (ws, welcome) = join("kitchen");
                assert_eq!(welcome, format!("somebody came in, {number} are here"));
                ws
            })
            .collect();
        let (mut other, _) = join("garden");
        kitchen[3].send(Message::text("two soups")).unwrap();
        for ws in &mut kitchen {
            while ws.read().unwrap().to_string() != "two soups" {}
        }
        other.send(Message::text("roses")).unwrap();
        assert_eq!(other.read().unwrap().to_string(), "roses");
        assert_eq!(running.ask("GET /kitchen", b""), (200, b"10 people are in /kitchen\n".to_vec()));
    }
}

#[test]
fn food_delivery() {
    const ORDERS: usize = 100;
    let server = postgres::Server::start(&["listen_addresses=".to_owned()]);
    let database = format!("host={} user=postgres dbname=balrog", server.directory);
    let kitchen = balrog::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("http://{}/", kitchen.local_addr().unwrap());
    let cook = |_: &mut Request<'_>| {
        thread::sleep(Duration::from_millis(300));
        (StatusCode::CREATED, "{\"mins\": 20}").into_response()
    };
    thread::spawn(move || HttpServer::new().connections(2 * ORDERS).serve(kitchen, cook));
    for (round, mode) in Runtime::all().iter().enumerate() {
        let arguments = ["127.0.0.1:0", &database, &at];
        let running = Running::new(env!("CARGO_BIN_EXE_food_delivery"), mode, &arguments);
        let running = &running;
        let mut customers: Vec<_> = (0..ORDERS)
            .map(|number| {
                let url = format!("ws://{}/ws/customer{number}", running.address);
                tungstenite::client(url, running.connect()).unwrap().0
            })
            .collect();
        let begun = Instant::now();
        thread::scope(|scope| {
            for number in 0..ORDERS {
                scope.spawn(move || {
                    let answer = running.ask(&format!("POST /orders/customer{number}"), b"soup");
                    assert_eq!(answer, (200, b"{\"mins\":20}\n".to_vec()));
                });
            }
        });
        // One after another they would take 30 s.
        assert!(begun.elapsed() < Duration::from_secs(8), "{mode}: {:?}", begun.elapsed());
        let mut ids: Vec<String> = Vec::new();
        for ws in &mut customers {
            let message = ws.read().unwrap().to_string();
            let id = message
                .strip_prefix("Order #")
                .and_then(|rest| rest.strip_suffix(" will be delivered in 20 minutes."));
            ids.push(id.unwrap_or_else(|| panic!("{message}")).to_owned());
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), ORDERS);
        let mut db = balrog::postgres::Client::connect(&database).unwrap();
        let count: i64 = db.query_one("select count(*) from orders", &[]).unwrap().get(0).unwrap();
        assert_eq!(count, (ORDERS * (round + 1)) as i64);
    }
}

#[test]
fn proxy() {
    for mode in Runtime::all() {
        let echo = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = echo.local_addr().unwrap().to_string();
        let running = Running::new(env!("CARGO_BIN_EXE_proxy"), mode, &["127.0.0.1:0", &to]);
        let echoes = thread::spawn(move || {
            for _ in 0..5 {
                let (stream, _) = echo.accept().unwrap();
                thread::spawn(move || std::io::copy(&mut &stream, &mut &stream).unwrap());
            }
        });
        let clients: Vec<_> = (0..5_u8)
            .map(|number| {
                let mut stream = running.connect();
                thread::spawn(move || {
                    let much = vec![number; 3 << 20];
                    let mut writer = stream.try_clone().unwrap();
                    let sent = much.clone();
                    let writing = thread::spawn(move || {
                        writer.write_all(&sent).unwrap();
                        writer.shutdown(std::net::Shutdown::Write).unwrap();
                    });
                    let mut back = Vec::new();
                    stream.read_to_end(&mut back).unwrap();
                    writing.join().unwrap();
                    assert!(back == much);
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        echoes.join().unwrap();
    }
}

#[test]
fn files() {
    for mode in Runtime::all() {
        let folder = std::env::temp_dir().join(format!("balrog-files-{}-{mode}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let at = ["127.0.0.1:0", folder.to_str().unwrap()];
        let running = Running::new(env!("CARGO_BIN_EXE_files"), mode, &at);
        let much: Vec<u8> = (0..5_000_000_u32).map(|number| number as u8).collect();
        assert_eq!(running.ask("PUT /soup.bin", &much), (201, b"5000000 bytes\n".to_vec()));
        assert!(running.ask("GET /soup.bin", b"") == (200, much));
        assert_eq!(running.ask("GET /stew.bin", b"").0, 404);
        assert_eq!(running.ask("GET /..%2fpasswd", b"").0, 400);
        assert_eq!(running.ask("DELETE /soup.bin", b"").0, 405);
        // Cut in the middle, it leaves nothing behind.
        let mut cut = running.connect();
        cut.write_all(b"PUT /half.bin HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf").unwrap();
        thread::sleep(Duration::from_millis(50));
        drop(cut);
        let names = || {
            let files = std::fs::read_dir(&folder).unwrap();
            files.map(|file| PathBuf::from(file.unwrap().file_name())).collect::<Vec<_>>()
        };
        let until = Instant::now() + Duration::from_secs(10);
        while names() != [PathBuf::from("soup.bin")] {
            assert!(Instant::now() < until, "{:?}", names());
            thread::sleep(Duration::from_millis(20));
        }
        drop(running);
        std::fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn libraries() {
    for mode in Runtime::all() {
        let output = Command::new(env!("CARGO_BIN_EXE_libraries"))
            .args(["--mode", &mode.to_string()])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text, "1000 orders\nthe kitchen says soup is ready\n", "{output:?}");
    }
}

#[test]
fn tail() {
    let server = postgres::Server::start(&["listen_addresses=".to_owned()]);
    let database = format!("host={} user=postgres dbname=balrog", server.directory);
    for mode in Runtime::all() {
        let mut process = Command::new(env!("CARGO_BIN_EXE_tail"))
            .args(["--mode", &mode.to_string(), &database, "kitchen"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut next = || lines.next().unwrap().unwrap();
        let say = |what: &str| {
            let mut db = balrog::postgres::Client::connect(&database).unwrap();
            db.query("select pg_notify('kitchen', $1)", &[&what]).unwrap();
        };
        assert_eq!(next(), "listening");
        say("soup is ready");
        assert_eq!(next(), "soup is ready");
        server.exchange("stop fast");
        server.exchange("start");
        assert_eq!(next(), "listening");
        say("stew is ready");
        assert_eq!(next(), "stew is ready");
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

#[test]
fn crawler() {
    const PAGES: usize = 60;
    static AT_ONCE: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let site = balrog::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let start = format!("http://{}/0", site.local_addr().unwrap());
    // Each page links to the next ones, to itself, and to one that is not there.
    let page = |request: &mut Request<'_>| {
        MOST.fetch_max(AT_ONCE.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(10));
        AT_ONCE.fetch_sub(1, Ordering::SeqCst);
        let Ok(number) = request.path()[1..].parse::<usize>() else {
            return StatusCode::NOT_FOUND.into_response();
        };
        let next = (1..=2).map(|step| 2 * number + step).filter(|next| *next < PAGES);
        let links: String = next.map(|next| format!("<a href=\"/{next}\">next</a>")).collect();
        format!("{links} <a href=\"/{number}\">here</a> <a href=\"/lost\">lost</a>").into_response()
    };
    thread::spawn(move || HttpServer::new().serve(site, page));
    for mode in Runtime::all() {
        MOST.store(0, Ordering::SeqCst);
        let output = Command::new(env!("CARGO_BIN_EXE_crawler"))
            .args(["--mode", &mode.to_string(), &start, "5"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(text.lines().filter(|line| line.starts_with("200 /")).count(), PAGES, "{output:?}");
        assert!(text.contains("404 /lost\n") && text.lines().count() == PAGES + 1, "{text}");
        let most = MOST.load(Ordering::SeqCst);
        assert!((2..=5).contains(&most), "{most} at once");
    }
}

#[test]
fn in_axum() {
    for mode in Runtime::all() {
        let running = Running::new(env!("CARGO_BIN_EXE_in_axum"), mode, &["127.0.0.1:0"]);
        let begun = Instant::now();
        thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| assert_eq!(running.ask("GET /", b""), (200, b"soup".to_vec())));
            }
        });
        // Each takes 200 ms: they were cooked at the same time.
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}

#[test]
fn a_mode_that_is_not_there_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_chat")).args(["--mode", "fibres"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("fibres") && error.contains("tokio"), "{error}");
}
