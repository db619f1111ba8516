//! WebSockets of the server and of the client, each test in every mode.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balrog::http::server::{Handle, Request, Server};
use balrog::net::TcpListener;
use balrog::websocket::{self, Deflate, Limits, Message, Options, Rooms, WebSocket};
use balrog::{Interrupt, JoinHandle, Runtime, offload, sleep_until, spawn, with_deadline};

const SOON: Duration = Duration::from_millis(50);

fn in_every_mode(body: fn() -> io::Result<()>) {
    for runtime in Runtime::all() {
        runtime.run(body).unwrap().unwrap_or_else(|error| panic!("{runtime}: {error}"));
    }
}

struct Running {
    url: String,
    handle: Handle,
    task: JoinHandle<io::Result<()>>,
}

impl Running {
    fn new(options: Options, speak: impl Fn(WebSocket) + Send + Sync + 'static) -> io::Result<Self> {
        let server = Server::new();
        let (listener, handle) = (TcpListener::bind("127.0.0.1:0")?, server.handle());
        let url = format!("ws://{}/", listener.local_addr()?);
        let speak = Arc::new(speak);
        let task = spawn(move || {
            server.serve(listener, move |request: &mut Request<'_>| {
                let speak = Arc::clone(&speak);
                options.accept(request, move |ws| speak(ws))
            })
        })?;
        Ok(Self { url, handle, task })
    }

    fn echo(options: Options) -> io::Result<Self> {
        Self::new(options, |mut ws| {
            while let Ok(Some(message)) = ws.recv() {
                ws.send(&message).unwrap();
            }
        })
    }

    fn stop(mut self) -> io::Result<()> {
        self.handle.stop();
        self.task.join()?
    }
}

fn text(text: &str) -> Option<Message> {
    Some(Message::Text(text.to_owned()))
}

#[test]
fn messages_come_back_and_the_close_is_answered() {
    in_every_mode(|| {
        let running = Running::echo(Options::default())?;
        let mut ws = websocket::connect(&running.url)?;
        ws.send("two soups")?;
        assert_eq!(ws.recv()?, text("two soups"));
        let large = vec![7; 700_000];
        ws.send(&large)?;
        assert_eq!(ws.recv()?, Some(Message::Binary(large)));
        ws.ping(b"are you there")?;
        ws.close(1000, "enough")?;
        assert_eq!(ws.closed().unwrap().code, 1000);
        assert_eq!(ws.send("late").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        running.stop()
    });
}

#[test]
fn protocol_and_compression_are_agreed_on() {
    in_every_mode(|| {
        let options = |protocols: &[&str]| Options {
            protocols: protocols.iter().map(|it| (*it).to_owned()).collect(),
            deflate: Some(Deflate::default()),
            ..Options::default()
        };
        let running = Running::echo(options(&["two", "one"]))?;
        let mut ws = options(&["one", "two"]).connect(&running.url)?;
        assert_eq!(ws.protocol(), Some("two"));
        let long = "soup ".repeat(10_000);
        for _ in 0..3 {
            ws.send(&long)?;
            assert_eq!(ws.recv()?, text(&long));
        }
        ws.close(1000, "")?;
        running.stop()
    });
}

#[test]
fn what_is_no_websocket_is_refused() {
    in_every_mode(|| {
        let running = Running::echo(Options::default())?;
        let port = running.url.rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap();
        let request = balrog::http::Request::get("127.0.0.1", port, "/");
        let response = balrog::http::Client.send(&request, b"").map_err(io::Error::other)?;
        assert_eq!(response.status, 426);
        let stranger = Options {
            headers: vec![("Origin".to_owned(), "https://evil.example".to_owned())],
            ..Options::default()
        };
        let error = stranger.connect(&running.url).unwrap_err();
        assert!(error.to_string().contains("answered 403"), "{error}");
        assert!(websocket::connect("wss://127.0.0.1/").unwrap_err().to_string().contains("Options::tls"));
        drop(response);
        running.stop()
    });
}

#[test]
fn a_wait_can_be_given_up_and_begun_again() {
    in_every_mode(|| {
        let running = Running::echo(Options::default())?;
        let mut ws = websocket::connect(&running.url)?;
        for round in 0..3 {
            let error = with_deadline(Instant::now() + SOON, || ws.recv()).unwrap_err();
            assert_eq!(Interrupt::of(&error), Some(Interrupt::Deadline));
            ws.send(&format!("round {round}"))?;
            assert_eq!(ws.recv()?, text(&format!("round {round}")));
        }
        ws.close(1000, "")?;
        running.stop()
    });
}

#[test]
fn one_receives_while_others_send() {
    in_every_mode(|| {
        let running = Running::echo(Options::default())?;
        let (sender, mut receiver) = websocket::connect(&running.url)?.split();
        let mut tasks = Vec::new();
        for number in 0..4_usize {
            let sender = sender.clone();
            tasks.push(spawn(move || -> io::Result<()> {
                for _ in 0..25 {
                    sender.send(&vec![number as u8; 20_000])?;
                }
                Ok(())
            })?);
        }
        let mut counts = [0; 4];
        for _ in 0..100 {
            let Some(Message::Binary(data)) = receiver.recv()? else { panic!("closed too early") };
            assert!(data.len() == 20_000 && data.iter().all(|byte| *byte == data[0]));
            counts[usize::from(data[0])] += 1;
        }
        assert_eq!(counts, [25; 4]);
        for mut task in tasks {
            task.join()??;
        }
        receiver.close(1000, "")?;
        running.stop()
    });
}

#[test]
fn a_room_hears_what_is_said() {
    in_every_mode(|| {
        let rooms = Rooms::new();
        let theirs = rooms.clone();
        let running = Running::new(Options::default(), move |mut ws| {
            let place = theirs.join("kitchen", &ws);
            while let Ok(Some(_)) = ws.recv() {}
            drop(place);
        })?;
        let mut guests = Vec::new();
        for _ in 0..5 {
            guests.push(websocket::connect(&running.url)?);
        }
        let until = Instant::now() + Duration::from_secs(10);
        while rooms.room("kitchen").len() < 5 {
            sleep_until(Instant::now() + Duration::from_millis(5))?;
            assert!(Instant::now() < until);
        }
        let large = "soup ".repeat(40_000);
        assert_eq!(rooms.room("kitchen").send(&large), 5);
        assert_eq!(rooms.room("kitchen").send("ready"), 5);
        assert_eq!(rooms.room("nobody").send("ready"), 0);
        for guest in &mut guests {
            assert_eq!(guest.recv()?, text(&large));
            assert_eq!(guest.recv()?, text("ready"));
            guest.close(1000, "")?;
        }
        while !rooms.room("kitchen").is_empty() {
            sleep_until(Instant::now() + Duration::from_millis(5))?;
            assert!(Instant::now() < until);
        }
        running.stop()
    });
}

#[test]
fn limits_and_lost_peers_are_errors() {
    in_every_mode(|| {
        let small = || {
            let mut limits = Limits::default();
            (limits.message, limits.frame) = (100, 100);
            Options { limits: Arc::new(limits), ..Options::default() }
        };
        let running = Running::echo(small())?;
        let mut ws = websocket::connect(&running.url)?;
        ws.send(&vec![1; 101])?;
        assert_eq!(ws.recv()?, None);
        assert_eq!(ws.closed().unwrap().code, 1009);
        running.stop()?;
        // One that is silent is pinged, and lost when it does not answer.
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("ws://{}/", listener.local_addr()?);
        let mut silent = spawn(move || -> io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut head = [0; 4096];
            let n = io::Read::read(&mut stream, &mut head)?;
            let head = String::from_utf8_lossy(&head[..n]).into_owned();
            let key = head.split("Sec-WebSocket-Key: ").nth(1).unwrap().split("\r\n").next().unwrap();
            let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
            let answer = format!(
                "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            io::Write::write_all(&mut stream, answer.as_bytes())?;
            sleep_until(Instant::now() + 20 * SOON)?;
            Ok(())
        })?;
        let mut limits = Limits::default();
        (limits.ping_interval, limits.pong_time) = (Some(SOON), SOON);
        let mut ws = Options { limits: Arc::new(limits), ..Options::default() }.connect(&url)?;
        let error = ws.recv().unwrap_err();
        assert!(error.kind() == io::ErrorKind::TimedOut && Interrupt::of(&error).is_none(), "{error}");
        silent.join()??;
        Ok(())
    });
}

#[test]
fn another_implementation_is_understood() {
    in_every_mode(|| {
        let running = Running::echo(Options::default())?;
        let url = running.url.clone();
        let said = offload(
            move || {
                let stream = std::net::TcpStream::connect(url.trim_matches(['w', 's', ':', '/'])).unwrap();
                let (mut ws, _) = tungstenite::client(&url, stream).unwrap();
                ws.send(tungstenite::Message::text("hello")).unwrap();
                let said = ws.read().unwrap().into_text().unwrap().to_string();
                ws.close(None).unwrap();
                while ws.read().is_ok() {}
                said
            },
            None,
        )?;
        assert_eq!(said, "hello");
        running.stop()
    });
}
