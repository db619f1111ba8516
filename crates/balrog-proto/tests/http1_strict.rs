//! What is refused for its danger, and what must not be refused, on both sides; byte by byte, too.

use std::time::Instant;

use balrog_proto::http1::{BodyLength, Client, ClientEvent, Limits, Server, ServerEvent};
use balrog_proto::{Link, Step};

/// The bodies of the requests that a server sees, and whether it refuses what comes then.
fn serve(bytes: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let run = |size: usize| {
        let mut link = Link::new(Server::new(Limits::default()));
        let (mut bodies, mut body) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(size) {
            link.receive(piece);
            loop {
                let end = match link.poll_event(Instant::now()) {
                    Ok(Step::Event(ServerEvent::Body(data))) => {
                        body.extend_from_slice(data);
                        false
                    }
                    Ok(Step::Event(event)) => matches!(event, ServerEvent::End),
                    Ok(_) => break,
                    Err(_) => return (bodies, true),
                };
                if end {
                    bodies.push(std::mem::take(&mut body));
                    link.respond(204, "No Content", &[], BodyLength::None, false).unwrap();
                    link.finish().unwrap();
                }
            }
        }
        (bodies, false)
    };
    let whole = run(bytes.len());
    assert_eq!(run(1), whole, "{}", bytes.escape_ascii());
    whole
}

fn refused(request: &[u8]) {
    let (bodies, refused) = serve(&[request, b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    assert!(refused && bodies.is_empty(), "{}", request.escape_ascii());
}

fn accepted(request: &[u8], body: &[u8]) {
    let next = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
    let seen = serve(&[request, next].concat());
    assert_eq!(seen, (vec![body.to_vec(), Vec::new()], false), "{}", request.escape_ascii());
}

#[test]
fn request_lines() {
    for line in [
        "GET /",
        "GET / HTTP/1",
        "GET / http/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.1x",
        "GET / HTTP/11",
        "GET / HTTP/1.",
        "GET / HTTP/1.01",
        "GET / HTTP/01.1",
        "GET / HTTP/1,1",
        "GET / HTTP /1.1",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET / HTTP/1.1\t",
        "GET\x0b/ HTTP/1.1",
        "GET /\x0c HTTP/1.1",
        "GET / HTTP/1.1\0",
        "\0GET / HTTP/1.1",
        "G\0ET / HTTP/1.1",
        "G(T / HTTP/1.1",
        "GET: / HTTP/1.1",
        "\"GET\" / HTTP/1.1",
        "GÉT / HTTP/1.1",
        "/ HTTP/1.1",
        "GET HTTP/1.1",
        "GET",
        "GET / HTTP/0.9",
        "GET / HTTP/3.0",
        "GET / HTTP/2",
        "GET / ICY/1.1",
        "GET /a b HTTP/1.1",
        "GET /é HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET /a\x7f HTTP/1.1",
        "GET a HTTP/1.1",
        "GET ?a HTTP/1.1",
        "GET a:80 HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET http:/a HTTP/1.1",
        "GET http:///a HTTP/1.1",
        "GET http://u@a/ HTTP/1.1",
        "GET http://a:b/ HTTP/1.1",
        "GET http://a:99999/ HTTP/1.1",
        "GET http://[::1/ HTTP/1.1",
        "GET http://a\\b/ HTTP/1.1",
        "GET * HTTP/1.1",
        "OPTIONS *a HTTP/1.1",
        "OPTIONS ** HTTP/1.1",
        "CONNECT a:80 HTTP/1.1",
        "CONNECT / HTTP/1.1",
        "PRI * HTTP/2.0",
        "PROXY TCP4 127.0.0.1 127.0.0.1 1 2",
        "HTTP/1.1 200 OK",
        "POST / HTTP/1.1\r",
        "GET /\r HTTP/1.1",
    ] {
        refused(format!("{line}\r\nHost: a\r\n\r\n").as_bytes());
    }
    for line in [
        "GET / HTTP/1.1",
        "get / HTTP/1.1",
        "M-SEARCH / HTTP/1.1",
        "!#$%&'*+-.^_`|~09azAZ / HTTP/1.1",
        "GET // HTTP/1.1",
        "GET /a/../b;c=d,e HTTP/1.1",
        "GET /?a=b&c=d?e/f HTTP/1.1",
        "GET /%00%zz HTTP/1.1",
        "GET /{}|^`\"<>\\[] HTTP/1.1",
        "GET http://a HTTP/1.1",
        "GET HTTP://a?b HTTP/1.1",
        "GET https://a:443/b HTTP/1.1",
        "GET http://[::1]:80/ HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "OPTIONS / HTTP/1.1",
        "TRACE / HTTP/1.1",
    ] {
        accepted(format!("{line}\r\nHost: a\r\n\r\n").as_bytes(), b"");
    }
}

#[test]
fn fields() {
    for field in [
        "A",
        "A b",
        " A: b",
        "\tA: b",
        ": b",
        "A : b",
        "A\t: b",
        "A\x0b: b",
        "A b: c",
        "A(: b",
        "A\0: b",
        "É: b",
        "A@: b",
        "A[: b",
        "A/: b",
        "\"A\": b",
        "A=: b",
        "A: b\r",
        "A: \rb",
        "A: b\nC: d",
        "A: b\0",
        "A: \0",
        "A: b\x01c",
        "A: b\x0bc",
        "A: b\x0c",
        "A: \x1b",
        "A: \x1c",
        "A: b\x7f",
        "A: b\r\n c",
        "A: b\r\n\tc",
        "A:\r\n b",
        "A: b\r\n ",
        "Host: a",
        "host: b",
        "Host:",
        "HOST: a, b",
    ] {
        refused(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n").as_bytes());
    }
    for field in [
        "A:",
        "A: ",
        "A:b",
        "A:\t b \t",
        "A: b:c",
        "A: b\tc",
        "!#$%&'*+-.^_`|~09: b",
        "A: \"b, c\"",
        "A: é",
        "Content_Length: 5",
        "Transfer_Encoding: chunked",
        "Connection: host",
        "Upgrade: x",
        "TE: trailers",
        "Content-Type: a/b",
        "Expect: 100-continue",
        "Expect: 100-Continue",
        "Trailer: a",
    ] {
        accepted(format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n").as_bytes(), b"");
    }
    // Bytes that are no text at all are none of our business in a value.
    accepted(b"GET / HTTP/1.1\r\nHost: a\r\nA: \x80\xff\x85\r\n\r\n", b"");
    refused(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Type: a\r\nContent-Type: a\r\n\r\n");
    refused(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n");
    for host in [
        "",
        "Host:",
        "Host: ",
        "Host: :80",
        "Host: a:80:80",
        "Host: a b",
        "Host: a/b",
        "Host: a?b",
        "Host: a#b",
        "Host: u@a",
        "Host: a:x",
        "Host: a:65536",
        "Host: a:-1",
        "Host: [",
        "Host: []",
        "Host: [a]",
        "Host: ::1",
        "Host: a,b",
        "Host: a\\b",
        "Host: a%",
        "Host: a%0",
        "Host: http://a",
        "Host: é",
        "Host: a\0",
        "Host: a;\x01",
    ] {
        refused(format!("GET / HTTP/1.1\r\n{host}\r\n\r\n").replace("\r\n\r\n\r\n", "\r\n\r\n").as_bytes());
    }
    for host in [
        "a",
        "A.b-c_d~e",
        "a.",
        "a:",
        "a:0",
        "a:65535",
        "[::1]",
        "[::1]:8000",
        "[v1.x]",
        "127.0.0.1:80",
        "a%20b",
        "a!$&'()*+;=",
    ] {
        accepted(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), b"");
    }
    // Line ends: only CRLF is one.
    for head in [
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\rHost: a\r\r",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\r\n",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\nHost: a\r\n\r\n",
    ] {
        refused(head.as_bytes());
    }
}

#[test]
fn framing() {
    let lengths = [
        "+5",
        "-5",
        "0x5",
        "5.0",
        "5e0",
        "1_0",
        "5 5",
        "5,5",
        "5, 5",
        ",5",
        "5,",
        "\"5\"",
        "",
        " ",
        "five",
        "٥",
        "99999999999999999999",
        "18446744073709551616",
        "5;a",
        "5\u{a0}",
        "5\x0c",
        "0b1",
        "''",
    ];
    for length in lengths {
        refused(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nhello").as_bytes());
    }
    let codings = [
        "",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "chunked, identity",
        "xchunked",
        "chunkedx",
        "chunked x",
        "chunked;a=b",
        "\"chunked\"",
        ", chunked",
        "chunked,",
        "chunked\x0b",
        "chunked\x0c",
        "\x0bchunked",
        "chun ked",
        "chunke\u{212a}",
        "chunked\0",
        "deflate",
        "x",
        "cow",
    ];
    for coding in codings {
        for length in ["", "Content-Length: 5\r\n"] {
            refused(
                format!("POST / HTTP/1.1\r\nHost: a\r\n{length}Transfer-Encoding: {coding}\r\n\r\n0\r\n\r\n")
                    .as_bytes(),
            );
            refused(
                format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n{length}\r\n0\r\n\r\n")
                    .as_bytes(),
            );
        }
    }
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\ncontent-length: 0",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding:\r\n chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "Transfer-Encoding chunked",
        "Content-Length : 5",
    ] {
        refused(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n").as_bytes());
    }
    refused(b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    for (fields, sent, body) in [
        ("Content-Length: 5", "hello", "hello"),
        ("Content-Length: 0005", "hello", "hello"),
        ("Content-Length:5 \t", "hello", "hello"),
        ("Content-Length: 0", "", ""),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("transfer-encoding:CHUNKED\t", "5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("Transfer-Encoding: chunked", "0\r\n\r\n", ""),
        (
            "Transfer-Encoding: chunked",
            "a\r\n0123456789\r\n0A\r\n0123456789\r\n00\r\n\r\n",
            "01234567890123456789",
        ),
        (
            "Transfer-Encoding: chunked",
            "5;a\r\nhello\r\n0;a=b;c=\"d\\\"\t;e\";f=g\r\nX: y\r\nZ:\r\n\r\n",
            "hello",
        ),
        ("Transfer-Encoding: chunked\r\nExpect: 100-continue", "5\r\nhello\r\n0\r\n\r\n", "hello"),
    ] {
        for method in ["POST", "GET", "DELETE"] {
            accepted(
                format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{sent}").as_bytes(),
                body.as_bytes(),
            );
        }
    }
}

#[test]
fn chunks() {
    for body in [
        "\r\n",
        "x\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5_\r\nhello\r\n0\r\n\r\n",
        "5.0\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello\n\r0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "6\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "5;\r\nhello\r\n0\r\n\r\n",
        "5 ;a\r\nhello\r\n0\r\n\r\n",
        "5; a\r\nhello\r\n0\r\n\r\n",
        "5;a =b\r\nhello\r\n0\r\n\r\n",
        "5;a= b\r\nhello\r\n0\r\n\r\n",
        "5;a=\r\nhello\r\n0\r\n\r\n",
        "5;=b\r\nhello\r\n0\r\n\r\n",
        "5;a=\"b\r\nhello\r\n0\r\n\r\n",
        "5;a=\"b\"c\r\nhello\r\n0\r\n\r\n",
        "5;a\nhello\r\n0\r\n\r\n",
        "5;a\n\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
        "5;a\0\r\nhello\r\n0\r\n\r\n",
        "5,a\r\nhello\r\n0\r\n\r\n",
        "0\n\n",
        "0\r\n\n",
        "0\r\n\rX",
        "0\r\nX\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\r\n z\r\n\r\n",
        "0\r\nX: \0\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\n: y\r\n\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nhost: b\r\n\r\n",
        "0\r\nTrailer: x\r\n\r\n",
        "0\r\nAuthorization: x\r\n\r\n",
        "0\r\nContent-Type: x\r\n\r\n",
        "0\r\nSet-Cookie: x\r\n\r\n",
        "5\u{661}\r\nhello\r\n0\r\n\r\n",
    ] {
        refused(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}").as_bytes());
    }
}

/// Status, body and whether the connection can be used again, or `None` for a response that is refused.
fn fetch(method: &str, bytes: &[u8]) -> Option<(u16, Vec<u8>, bool)> {
    let run = |size: usize| {
        let mut link = Link::new(Client::new(Limits::default()));
        link.request(method, "/", "a", &[], BodyLength::None).unwrap();
        link.transmitted(link.unsent());
        let (mut status, mut body) = (0, Vec::new());
        let mut pieces = bytes.chunks(size.max(1));
        loop {
            match link.poll_event(Instant::now()) {
                Ok(Step::Event(ClientEvent::Response(head))) => status = head.status,
                Ok(Step::Event(ClientEvent::Body(data))) => body.extend_from_slice(data),
                Ok(Step::Event(ClientEvent::End { reusable })) => return Some((status, body, reusable)),
                Ok(Step::Event(_)) => {}
                Ok(_) => match pieces.next() {
                    Some(piece) => link.receive(piece),
                    None => link.receive_eof(),
                },
                Err(_) => return None,
            }
        }
    };
    let whole = run(bytes.len());
    let single = run(1).map(|(status, body, _)| (status, body));
    assert_eq!(single, whole.clone().map(|(status, body, _)| (status, body)), "{}", bytes.escape_ascii());
    whole
}

#[test]
fn responses() {
    for response in [
        "",
        "\0\u{1}",
        "HTTP/1.1",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 +20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1\t200 OK\r\n\r\n",
        "HTTP/1.1 200\tOK\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "HTTP/1.1 200 OK\n\n",
        "http/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\n",
    ] {
        assert_eq!(fetch("GET", response.as_bytes()), None, "{response:?}");
    }
    let good = |method, response: &str, status, body: &str, reusable| {
        assert_eq!(
            fetch(method, response.as_bytes()),
            Some((status, body.as_bytes().to_vec(), reusable)),
            "{response:?}"
        );
    };
    good("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", true);
    good("GET", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", 200, "ok", true);
    good("GET", "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", 200, "ok", true);
    good("GET", "HTTP/1.1 999 é\r\nContent-Length: 0\r\nSet-Cookie: \u{1}\r\n\r\n", 999, "", true);
    good("GET", "HTTP/1.1 200 OK\r\n\r\nto the end", 200, "to the end", false);
    good("GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", false);
    good("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x, Close\r\n\r\nok", 200, "ok", false);
    good("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more", 200, "ok", false);
    good(
        "GET",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        204,
        "",
        true,
    );
    good("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, "", true);
    good("GET", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", 304, "", true);
    good("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, "", true);
    good("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevil", 200, "", false);
    good(
        "GET",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nA: b\r\n\r\n",
        200,
        "ok",
        true,
    );
}
