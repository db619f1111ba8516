//! The HTTP client by URLs, against our own server: one body in every mode.

use std::io::{self, Read, Write};
use std::net::TcpListener as Plain;
use std::time::{Duration, Instant};

use balrog::http::client::Client;
use balrog::http::server::{Handle, IntoResponse, Request, Response, Server};
use balrog::http::{self, Kind, Phase, StatusCode};
use balrog::net::TcpListener;
use balrog::{Interrupt, JoinHandle, Runtime, spawn, with_deadline};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn in_every_mode(body: fn() -> Result<()>) {
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
    fn new() -> io::Result<Self> {
        let server = Server::new();
        let (listener, handle) = (TcpListener::bind("127.0.0.1:0")?, server.handle());
        let url = format!("http://{}", listener.local_addr()?);
        Ok(Self { url, handle, task: spawn(move || server.serve(listener, answer))? })
    }

    fn stop(mut self) -> Result<()> {
        self.handle.stop();
        Ok(self.task.join()??)
    }
}

fn answer(request: &mut Request<'_>) -> Response {
    let to = |status: u16, location: &'static str| {
        let mut response = StatusCode::from_u16(status).unwrap().into_response();
        response.headers_mut().insert("location", location.parse().unwrap());
        response
    };
    match request.path() {
        "/echo" => {
            let body = request.body(1 << 20).unwrap();
            let head = [request.method().as_str(), request.query()].join(" ");
            let names = ["content-type", "authorization", "x-dish"];
            let fields = names.map(|name| request.header(name).unwrap_or("-").to_owned()).join(" ");
            format!("{head} {fields} {}", String::from_utf8_lossy(&body)).into_response()
        }
        "/found" => to(302, "echo?from=found"),
        "/kept" => to(307, "/echo"),
        "/loop" => to(301, "/loop"),
        "/slow" => {
            let _ = balrog::sleep_until(Instant::now() + Duration::from_millis(300));
            "late".into_response()
        }
        "/json" => r#"{"mins": [20, 30]}"#.into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

#[test]
fn requests_are_put_together() {
    in_every_mode(|| {
        let running = Running::new()?;
        let at = |path: &str| format!("{}{path}", running.url);
        let text =
            http::get(&at("/echo?a=1")).query("for", "two & more").header("X-Dish", "soup").send()?.text()?;
        assert_eq!(text, "GET a=1&for=two+%26+more - - soup ");
        let sent = http::post(&at("/echo")).form(&[("dish", "soup"), ("n", "2")]).bearer("token").send()?;
        assert_eq!(sent.status(), StatusCode::OK);
        assert_eq!(sent.text()?, "POST  application/x-www-form-urlencoded Bearer token - dish=soup&n=2");
        let client = Client::new().header("x-dish".parse()?, "stew".parse()?);
        assert_eq!(client.get(&at("/echo")).send()?.text()?, "GET  - - stew ");
        assert_eq!(client.get(&at("/echo")).header("x-dish", "rice").send()?.text()?, "GET  - - rice ");
        let mut piece = [0; 3];
        client.get(&at("/echo")).send()?.read_exact(&mut piece)?;
        assert_eq!(&piece, b"GET");
        running.stop()
    });
}

#[cfg(feature = "json")]
#[test]
fn json_both_ways() {
    in_every_mode(|| {
        let running = Running::new()?;
        let mins: std::collections::BTreeMap<String, Vec<u32>> =
            http::get(&format!("{}/json", running.url)).send()?.json()?;
        assert_eq!(mins["mins"], [20, 30]);
        let echoed = http::post(&format!("{}/echo", running.url)).json(&["soup"]).send()?.text()?;
        assert_eq!(echoed, "POST  application/json - - [\"soup\"]");
        let wrong = http::get(&format!("{}/echo", running.url)).send()?.json::<u32>().unwrap_err();
        assert_eq!(wrong.phase(), Phase::Body);
        running.stop()
    });
}

#[test]
fn redirects_are_followed_and_credentials_stay_at_home() {
    in_every_mode(|| {
        let running = Running::new()?;
        let at = |path: &str| format!("{}{path}", running.url);
        let found = http::post(&at("/found")).bearer("token").body("soup").send()?;
        assert_eq!(found.url(), at("/echo?from=found"));
        assert_eq!(found.text()?, "GET from=found - Bearer token - ");
        assert_eq!(http::post(&at("/kept")).body("soup").send()?.text()?, "POST  - - - soup");
        assert_eq!(Client::new().redirects(0).get(&at("/found")).send()?.status(), StatusCode::FOUND);
        let error = http::get(&at("/loop")).send().unwrap_err().to_string();
        assert!(error.contains("more than 10 redirects") && error.contains("/loop"), "{error}");
        // Another port is another host.
        let elsewhere = Plain::bind("127.0.0.1:0")?;
        let to = format!("http://{}/echo", elsewhere.local_addr()?);
        let target = at("/echo");
        let redirecting = std::thread::spawn(move || -> io::Result<String> {
            let (mut stream, _) = elsewhere.accept()?;
            let mut head = [0; 4096];
            let n = stream.read(&mut head)?;
            write!(stream, "HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n")?;
            Ok(String::from_utf8_lossy(&head[..n]).into_owned())
        });
        let moved = Client::new().no_proxies().get(&to).bearer("token").send()?;
        assert_eq!(moved.text()?, "GET  - - - ");
        assert!(redirecting.join().unwrap()?.to_lowercase().contains("bearer token"));
        running.stop()
    });
}

#[test]
fn errors_name_the_url_the_phase_and_a_cure() {
    in_every_mode(|| {
        let running = Running::new()?;
        let at = |path: &str| format!("{}{path}", running.url);
        let error = http::get(&at("/nothing")).send()?.ok().unwrap_err().to_string();
        assert!(error.contains("404") && error.contains("/nothing"), "{error}");
        let error = http::get(&at("/slow")).timeout(Duration::from_millis(50)).send().unwrap_err();
        assert_eq!(error.kind(), Kind::Timeout);
        assert!(error.to_string().contains("timeout"), "{error}");
        let soon = Instant::now() + Duration::from_millis(50);
        let error = with_deadline(soon, || http::get(&at("/slow")).send()).unwrap_err();
        assert_eq!(error.interrupt(), Some(Interrupt::Deadline));
        let gone = Plain::bind("127.0.0.1:0")?.local_addr()?;
        let error = http::get(&format!("http://{gone}/")).send().unwrap_err();
        assert_eq!(error.phase(), Phase::Connect);
        for unsound in ["kitchen/menu", "ftp://kitchen/", "http://me:secret@kitchen/"] {
            assert_eq!(http::get(unsound).send().unwrap_err().phase(), Phase::Request, "{unsound}");
        }
        assert_eq!(http::get(&at("/echo")).header("x y", "z").send().unwrap_err().phase(), Phase::Request);
        running.stop()
    });
}
