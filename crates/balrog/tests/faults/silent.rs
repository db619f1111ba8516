//! Peers that are there and say nothing, or are gone without a word.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use balrog::http::{self, Kind, Method, Phase};
use balrog::tls::{TlsAcceptor, TlsConfig};
use balrog::websocket::{Limits, Options};
use balrog::{Interrupt, spawn, with_deadline};

use crate::proxy::{Fault, Of};
use crate::site::{At, PATIENCE, certificate};
use crate::until::LONG;
use crate::{Peer, SOON, in_every_mode, proxied};

/// A peer that says this, and then nothing until the other one goes.
fn silent(after: &'static [u8]) -> io::Result<Peer> {
    Peer::new(move |mut stream: TcpStream| {
        if !after.is_empty() {
            assert!(stream.read(&mut [0; 4096])? > 0);
            stream.write_all(after)?;
        }
        stream.read_to_end(&mut Vec::new()).map(drop)
    })
}

#[test]
fn a_server_that_falls_silent_costs_the_time_out_of_what_is_waited_for() {
    in_every_mode(|| {
        for (said, phase) in
            [("HTTP/1.1 200", Phase::Head), ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour", Phase::Body)]
        {
            let peer = silent(said.as_bytes())?;
            let (at, begun) = (peer.at(), Instant::now());
            let request = at.client().read_timeout(SOON).get(&at.url("http", ""));
            let error = request.send().and_then(http::client::Response::text).unwrap_err();
            assert_eq!((error.kind(), error.phase()), (Kind::Timeout, phase), "{error}");
            assert!(begun.elapsed() >= SOON && begun.elapsed() < LONG);
            // The deadline of the code around is another matter than a time-out, and as effective.
            let request = at.client().get(&at.url("http", ""));
            let asked = || request.send().and_then(http::client::Response::text);
            let error = with_deadline(Instant::now() + SOON, asked).unwrap_err();
            assert_eq!(error.interrupt(), Some(Interrupt::Deadline), "{error}");
            assert_eq!(http::idle_connections(), 0);
        }
        Ok(())
    });
}

#[test]
fn nobody_answers_a_handshake() {
    in_every_mode(|| {
        let peer = silent(b"")?;
        let at = At { tls: Some(TlsConfig::new(Some(certificate()), None)?), ..peer.at() };
        let error = at.client().connect_timeout(SOON).get(&at.url("http", "")).send().unwrap_err();
        assert_eq!((error.kind(), error.phase()), (Kind::Timeout, Phase::Tls), "{error}");
        for tls in [None, at.tls.clone()] {
            let at = At { tls: tls.clone(), ..at };
            let options = Options { connect_timeout: SOON, tls, ..Options::default() };
            let error = options.connect(&at.url("ws", "")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        }
        Ok(())
    });
}

/// Neither do clients: the server gives up waiting for each part of what they say.
#[test]
fn a_server_does_not_wait_for_ever() {
    in_every_mode(|| {
        let mut tasks = Vec::new();
        for tls in [false, true] {
            // In a handshake or a head, in a body, and in what follows much of it.
            for (behind, size) in [(10, 10), (500, 1_000), (1_000, 20_000), (5_000, 200_000)] {
                let (site, proxy, at) = proxied(tls)?;
                tasks.push(spawn(move || {
                    proxy.set_of(Of::Client, Fault::Silence, behind);
                    let result = at.echo(Method::POST, 7, size);
                    // 408, or the end.
                    let error = result.expect_err("it was not sent");
                    assert!(Interrupt::of(&error).is_none(), "{error:?}");
                    site.until_alone()?;
                    site.stop()
                })?);
            }
        }
        let begun = Instant::now();
        tasks.into_iter().try_for_each(|mut task| task.join()?)?;
        assert!(begun.elapsed() > PATIENCE / 2);
        Ok(())
    });
}

/// A handshake of TLS that a client begins and leaves alone.
#[test]
fn an_acceptor_has_its_deadline() {
    in_every_mode(|| {
        let acceptor = TlsAcceptor::new(certificate(), certificate(), None)?;
        for hello in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
            let (ours, mut theirs) = balrog::net::UnixStream::pair()?;
            theirs.write_all(hello)?;
            let begun = Instant::now();
            let error = with_deadline(begun + SOON, || acceptor.accept(ours)).unwrap_err();
            assert_eq!(Interrupt::of(&error), Some(Interrupt::Deadline));
            // Nothing of ours holds it any more.
            theirs.read_to_end(&mut Vec::new())?;
            let (ours, theirs) = balrog::net::UnixStream::pair()?;
            drop(theirs);
            assert_eq!(acceptor.accept(ours).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }
        Ok(())
    });
}

/// Half open: either end of a WebSocket finds that the other one is gone by asking.
#[test]
fn a_websocket_whose_peer_is_gone() {
    in_every_mode(|| {
        let mut tasks = Vec::new();
        for of in [Of::Server, Of::Client] {
            tasks.push(spawn(move || silenced(of))?);
        }
        tasks.into_iter().try_for_each(|mut task| task.join()?)
    });
}

fn silenced(of: Of) -> io::Result<()> {
    let (site, proxy, at) = proxied(false)?;
    let mut limits = Limits::default();
    let ours = if of == Of::Server { SOON } else { LONG };
    (limits.ping_interval, limits.pong_time) = (Some(ours), ours);
    let options = Options { limits: Arc::new(limits), ..Options::default() };
    let mut ws = options.connect(&at.url("ws", "ws"))?;
    // Whatever is late on a busy machine is no answer yet.
    proxy.set_of(of, Fault::Silence, 0);
    let begun = Instant::now();
    ws.send("are you there")?;
    match ws.recv() {
        Err(error) if of == Of::Server => assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}"),
        // The server is patient, and then it is the one that leaves.
        Ok(None) | Err(_) if of == Of::Client => assert!(begun.elapsed() >= PATIENCE),
        other => panic!("{of:?}: {other:?}"),
    }
    assert!(begun.elapsed() < LONG);
    drop(ws);
    site.until_alone()?;
    site.stop()
}
