//! Connections that end in the middle.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use balrog::http::{self, Kind, Method};
use balrog::net::TcpListener;
use balrog::tls::TlsAcceptor;
use balrog::{Interrupt, spawn};

use crate::proxy::{Fault, Of};
use crate::site::{At, certificate};
use crate::{Peer, in_every_mode, proxied};

/// Whether an exchange that the proxy cut failed as it should.
fn is_cut(error: &io::Error) -> bool {
    Interrupt::of(error).is_none() && error.kind() != ErrorKind::TimedOut
}

/// Cuts either side's bytes behind every few of them: what is cut is an error, and never too short.
fn cut_everywhere(tls: bool, step: usize, work: fn(&At) -> io::Result<()>) -> io::Result<()> {
    let (site, proxy, at) = proxied(tls)?;
    for of in [Of::Server, Of::Client] {
        for fault in [Fault::Close, Fault::Reset] {
            let (mut cut, mut behind) = (0, 0);
            loop {
                proxy.set_of(of, fault, behind);
                let result = work(&at);
                let over = proxy.is_pending();
                proxy.set(Fault::None, 0);
                match result {
                    Ok(()) if over => break,
                    // What was cut was a good-bye.
                    Ok(()) => {}
                    Err(error) => {
                        assert!(is_cut(&error), "{of:?} {fault:?} at {behind}: {error:?}");
                        cut += 1;
                    }
                }
                // Nobody gets what was left of it.
                at.echo(Method::PUT, behind as u64, 10)?;
                behind += step;
            }
            assert!(cut > 5, "{of:?} {fault:?}: {cut}");
        }
    }
    // Connections that are kept go with their idle time.
    site.stop()
}

#[test]
fn an_exchange_is_cut() {
    in_every_mode(|| cut_everywhere(false, 61, |at| at.echo(Method::POST, 7, 900)));
}

/// The handshake too.
#[test]
fn an_exchange_over_tls_is_cut() {
    // A new connection each: a kept one would have its handshake behind it.
    in_every_mode(|| {
        cut_everywhere(true, 171, |at| {
            let fresh =
                At { tls: Some(balrog::tls::TlsConfig::new(Some(certificate()), None)?), ..at.clone() };
            fresh.echo(Method::POST, 7, 900)
        })
    });
}

#[test]
fn a_websocket_is_cut() {
    in_every_mode(|| cut_everywhere(false, 97, |at| at.chat(7, 3, 400)));
}

#[test]
fn a_websocket_over_tls_is_cut() {
    in_every_mode(|| cut_everywhere(true, 299, |at| at.chat(7, 3, 400)));
}

fn read_head(stream: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(())
}

/// A server that has heard enough: its answer counts, although the request could not be sent.
#[test]
fn an_answer_before_the_end_of_the_request_is_the_answer() {
    in_every_mode(|| {
        let peer = Peer::new(|mut stream| {
            read_head(&mut stream)?;
            stream.write_all(b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")?;
            // With what it did not read, a reset.
            stream.shutdown(Shutdown::Write)
        })?;
        let at = peer.at();
        let response = at.client().post(&at.url("http", "")).body(vec![1; 8 << 20]).send()?;
        assert_eq!(response.status(), 413);
        assert_eq!(response.text()?, "no");
        assert_eq!(http::idle_connections(), 0);
        Ok(())
    });
}

/// More than was asked for would be the next one's answer.
#[test]
fn a_connection_with_something_left_is_not_used_again() {
    in_every_mode(|| {
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let peer = Peer::new(move |mut stream| {
            read_head(&mut stream)?;
            let number = counted.fetch_add(1, Ordering::SeqCst);
            // At once: what comes later may come when the client has done with looking.
            let right = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}");
            let wrong = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong";
            stream.write_all([&right, wrong].concat().as_bytes())?;
            // Until the client has gone.
            stream.read_to_end(&mut Vec::new()).map(drop)
        })?;
        let at = peer.at();
        for number in 0..3 {
            let response = at.client().get(&at.url("http", "")).send()?;
            assert_eq!(response.text()?, number.to_string());
        }
        assert_eq!(connections.load(Ordering::SeqCst), 3);
        http::sweep();
        Ok(())
    });
}

/// Over TLS the end of the connection may be anybody's, unless the server says good-bye.
#[test]
fn a_body_up_to_the_end_of_the_connection_needs_the_good_bye_of_tls() {
    in_every_mode(|| {
        let acceptor = TlsAcceptor::new(certificate(), certificate(), None)?;
        let tls = Some(balrog::tls::TlsConfig::new(Some(certificate()), None)?);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let at = At { port: listener.local_addr()?.port(), tls };
        let mut server = spawn(move || -> io::Result<()> {
            for (good_bye, head) in
                [(false, ""), (true, ""), (false, "Content-Length: 4\r\nConnection: close\r\n")]
            {
                let mut stream = acceptor.accept(listener.accept()?.0)?;
                assert!(stream.read(&mut [0; 4096])? > 0);
                write!(stream, "HTTP/1.1 200 OK\r\n{head}\r\nsoup")?;
                stream.flush()?;
                if good_bye {
                    balrog::net::Transport::shutdown(&mut stream)?;
                }
            }
            Ok(())
        })?;
        let get = || at.client().get(&at.url("http", "")).send().and_then(http::client::Response::text);
        let cut = get().unwrap_err();
        assert!(cut.kind() == Kind::Closed && cut.phase() == http::Phase::Body, "{cut}");
        assert_eq!(get()?, "soup");
        // With its length it is whole.
        assert_eq!(get()?, "soup");
        server.join()?
    });
}
