//! The HTTP client on a plain thread, against servers of a few lines.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use balrog::http::{Client, Kind, Phase, Proxy, Request, idle_connections};
use balrog::tls::TlsConfig;
use balrog_proto::http1::BodyLength;

/// Serves connections one after the other, each with the answers of its own; after the last
/// answer of a connection it reads one more head, if there is one, and closes.
fn serve(answers: Vec<Vec<&'static str>>) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, heads) = mpsc::channel();
    thread::spawn(move || {
        for answers in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut input = BufReader::new(stream.try_clone().unwrap());
            let mut output = stream;
            for answer in answers.iter().map(Some).chain([None]) {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if input.read_line(&mut head).unwrap_or(0) == 0 {
                        break;
                    }
                }
                if head.is_empty() {
                    break;
                }
                sender.send(head).unwrap();
                if let Some(answer) = answer {
                    output.write_all(answer.as_bytes()).unwrap();
                }
            }
        }
    });
    (port, heads)
}

fn get(port: u16) -> Request<'static> {
    Request { read_timeout: Some(Duration::from_secs(5)), ..Request::get("127.0.0.1", port, "/") }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn connections_are_reused_and_stale_ones_replaced() {
    let (port, heads) = serve(vec![vec![OK, OK], vec![OK]]);
    for _ in 0..3 {
        let mut response = Client.send(&get(port), b"").unwrap();
        assert_eq!(response.read_to_end(100).unwrap(), b"ok");
        assert!(response.is_complete());
    }
    // The third was sent over the first connection, in vain, and then over the second.
    assert_eq!(heads.iter().take(4).count(), 4);
}

#[test]
fn a_post_is_never_sent_twice() {
    let (port, heads) = serve(vec![vec![OK], vec![OK]]);
    Client.send(&get(port), b"").unwrap().read_to_end(100).unwrap();
    let post = Request { method: "POST", ..get(port) };
    assert_eq!(Client.send(&post, b"").unwrap_err().phase, Phase::Head);
    assert_eq!(heads.iter().take(2).filter(|head| head.starts_with("POST")).count(), 1);
}

#[test]
fn a_cut_body_is_an_error() {
    let (port, _heads) =
        serve(vec![vec!["HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nok"]]);
    let mut response =
        Client.send(&Request { read_timeout: Some(Duration::from_millis(200)), ..get(port) }, b"").unwrap();
    let error = response.read_to_end(100).unwrap_err();
    assert!((error.phase, error.kind()) == (Phase::Body, Kind::Timeout), "{error}");
}

#[test]
fn a_body_beyond_the_limit_is_an_error() {
    let (port, _heads) = serve(vec![vec![OK]]);
    let mut response = Client.send(&get(port), b"").unwrap();
    assert_eq!(response.read_to_end(1).unwrap_err().phase, Phase::Body);
}

#[test]
fn a_body_in_pieces_is_chunked() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"0\r\n\r\n") {
            let mut buffer = [0; 1024];
            let n = stream.read(&mut buffer).unwrap();
            seen.extend_from_slice(&buffer[..n]);
        }
        stream.write_all(OK.as_bytes()).unwrap();
        String::from_utf8(seen).unwrap()
    });
    let post = Request { method: "POST", ..get(port) };
    let mut exchange = Client.stream(&post, BodyLength::Unknown).unwrap();
    exchange.write(b"one").unwrap();
    exchange.write(b"").unwrap();
    exchange.write(b"two").unwrap();
    assert_eq!(exchange.response().unwrap().read_to_end(100).unwrap(), b"ok");
    let seen = server.join().unwrap();
    assert!(seen.contains("Transfer-Encoding: chunked\r\n"), "{seen}");
    assert!(seen.ends_with("\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"), "{seen}");
}

fn by_proxy(port: u16) -> Proxy {
    let headers = vec![(b"Proxy-Authorization".to_vec(), b"Basic eDp5".to_vec())];
    Proxy { host: "127.0.0.1".to_owned(), port, headers }
}

#[test]
fn a_proxy_is_asked_for_the_whole_url() {
    let (port, heads) = serve(vec![vec![OK, OK]]);
    let proxy = by_proxy(port);
    for authority in ["one.example", "two.example:81"] {
        let request = Request { authority, proxy: Some(&proxy), ..Request::get("one.example", 80, "/menu") };
        assert_eq!(Client.send(&request, b"").unwrap().read_to_end(100).unwrap(), b"ok");
        let head = heads.recv().unwrap();
        let line = format!("GET http://{authority}/menu HTTP/1.1\r\nHost: {authority}\r\n");
        assert!(head.starts_with(&line) && head.contains("Proxy-Authorization: Basic eDp5\r\n"), "{head}");
    }
}

#[test]
fn a_tunnel_is_refused_or_spoken_into_early() {
    let anybody = TlsConfig::new(None, None).unwrap();
    for (answer, why) in [
        ("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "407 Proxy"),
        ("HTTP/1.1 200 OK\r\n\r\nearly", "before TLS"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly", "before TLS"),
        ("SSH-2.0-x\r\n", "no HTTP/1 response"),
    ] {
        let (port, heads) = serve(vec![vec![answer]]);
        let proxy = by_proxy(port);
        let request =
            Request { tls: Some(&anybody), proxy: Some(&proxy), ..Request::get("one.example", 443, "/") };
        let error = Client.send(&request, b"").unwrap_err();
        assert_eq!(error.phase, Phase::Proxy, "{error}");
        assert!(error.to_string().contains(why), "{error}");
        let head = heads.recv().unwrap();
        assert!(head.starts_with("CONNECT one.example:443 HTTP/1.1\r\nHost: one.example:443\r\n"), "{head}");
        assert!(head.contains("Proxy-Authorization: Basic eDp5\r\n"), "{head}");
    }
}

#[test]
fn an_owner_has_its_connections_alone() {
    let (port, _heads) = serve(vec![vec![OK, OK, OK]]);
    let ask = |owner| {
        let request = Request { owner, read_timeout: Some(Duration::from_millis(500)), ..get(port) };
        Client.send(&request, b"").and_then(|mut response| response.read_to_end(100))
    };
    assert_eq!(ask(7).unwrap(), b"ok");
    assert_eq!(idle_connections(), 1);
    // It would be answered over the kept connection; on another one the server is not listening yet.
    for stranger in [0, 8] {
        assert_eq!(ask(stranger).unwrap_err().kind(), Kind::Timeout);
    }
    assert_eq!(ask(7).unwrap(), b"ok");
}
