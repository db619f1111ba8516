//! Peers that take nothing: who writes has to wait, and does not pile up what it writes.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use balrog::http::server::{Body, IntoResponse, Request, Server};
use balrog::net::TcpListener;
use balrog::tls::{TlsAcceptor, TlsConfig};
use balrog::websocket::{Limits, Options, Rooms, WebSocket};
use balrog::{Interrupt, http, sleep_until, spawn, with_deadline};

use crate::site::{At, certificate, pattern};
use crate::until::{LONG, until};
use crate::{Peer, SOON, in_every_mode};

/// What the two ends and the system hold of a connection, at most: sockets of Linux take a few
/// megabytes each way.
const HELD: usize = 24 << 20;
const PIECE: usize = 64 * 1024;
/// Much more than that.
const MUCH: usize = 4 * HELD;

/// Waits until a number has not grown for a while.
fn until_it_stands(number: &AtomicUsize) -> io::Result<usize> {
    let mut before = 0;
    until("it stands still", || {
        let now = number.load(Ordering::SeqCst);
        let _ = sleep_until(Instant::now() + 6 * SOON);
        std::mem::replace(&mut before, now) == now && now > 0
    })?;
    Ok(before)
}

/// A server that writes without end to who does not read, until its time-out.
#[test]
fn a_server_waits_for_a_client_that_reads_nothing() {
    in_every_mode(|| {
        for tls in [false, true] {
            let written = Arc::new(AtomicUsize::new(0));
            let (counted, listener) = (Arc::clone(&written), TcpListener::bind("127.0.0.1:0")?);
            let mut server = Server::new().write_timeout(20 * SOON);
            if tls {
                server = server.tls(TlsAcceptor::new(certificate(), certificate(), None)?);
            }
            let (port, handle) = (listener.local_addr()?.port(), server.handle());
            let mut task = spawn(move || {
                server.serve(listener, move |_: &mut Request<'_>| {
                    let counted = Arc::clone(&counted);
                    Body::writer(move |out| {
                        while counted.load(Ordering::SeqCst) < MUCH {
                            out.write_all(&[7; PIECE])?;
                            counted.fetch_add(PIECE, Ordering::SeqCst);
                        }
                        Ok(())
                    })
                    .into_response()
                })
            })?;
            let tls = if tls { Some(TlsConfig::new(Some(certificate()), None)?) } else { None };
            let at = At { port, tls };
            let response = at.client().get(&at.url("http", "")).send()?;
            let stood = until_it_stands(&written)?;
            assert!(stood < HELD, "{stood}");
            // The client is given up, and what it does not get is not written.
            until("the client is given up", || handle.connections() == 0)?;
            assert!(written.load(Ordering::SeqCst) < HELD);
            assert!(response.bytes().is_err());
            handle.stop();
            task.join()??;
        }
        Ok(())
    });
}

/// A client that sends without end to who does not read, until its deadline.
#[test]
fn a_client_waits_for_a_server_that_reads_nothing() {
    in_every_mode(|| {
        let (over, is_over) = mpsc::channel::<()>();
        let peer = Peer::new(move |_stream| {
            let _ = is_over.recv();
            Ok(())
        })?;
        // Dropped before the peer, which waits for it.
        let _over = over;
        let request = http::Request::get("127.0.0.1", peer.port, "/");
        let request = http::Request { method: "POST", ..request };
        let length = balrog_proto::http1::BodyLength::Length(MUCH as u64);
        let mut exchange = http::Client.stream(&request, length).map_err(|error| error.source)?;
        let mut written = 0;
        let until = Instant::now() + LONG;
        let error = loop {
            // A piece that takes longer than this is one that there is no room for.
            match with_deadline(Instant::now() + 20 * SOON, || exchange.write(&[7; PIECE])) {
                Ok(()) => written += PIECE,
                Err(error) => break error,
            }
            assert!(written < HELD && Instant::now() < until, "{written}");
        };
        assert_eq!(error.interrupt(), Some(Interrupt::Deadline));
        Ok(())
    });
}

/// Serves WebSockets by `speak`.
fn serve(
    options: Options,
    speak: impl Fn(WebSocket) + Send + Sync + 'static,
) -> io::Result<(String, impl FnOnce() -> io::Result<()>)> {
    let (server, listener) = (Server::new(), TcpListener::bind("127.0.0.1:0")?);
    let (url, handle) = (format!("ws://{}/", listener.local_addr()?), server.handle());
    let speak = Arc::new(speak);
    let mut task = spawn(move || {
        server.serve(listener, move |request: &mut Request<'_>| {
            let speak = Arc::clone(&speak);
            options.accept(request, move |ws| speak(ws))
        })
    })?;
    let stop = move || {
        until("no connection", || handle.connections() == 0)?;
        handle.stop();
        task.join()?
    };
    Ok((url, stop))
}

/// Both ends of a WebSocket: who does not receive makes the other one wait, for as long as that
/// has patience; then everything comes, once and in order.
#[test]
fn a_websocket_that_is_not_read_makes_its_peer_wait() {
    in_every_mode(|| {
        let (url, stop) = serve(Options::default(), |mut ws| {
            // It says much and hears nothing, and then hears everything.
            let mut number = 0;
            while number * PIECE < MUCH {
                match with_deadline(Instant::now() + 10 * SOON, || ws.send(&pattern(number as u64, PIECE))) {
                    Ok(()) => number += 1,
                    Err(_) => break,
                }
            }
            assert!(number * PIECE < HELD, "{number}");
            while let Ok(Some(_)) = ws.recv() {}
        })?;
        let mut ws = Options::default().connect(&url)?;
        let (mut said, begun) = (0, Instant::now());
        let error = loop {
            match with_deadline(Instant::now() + 10 * SOON, || ws.send(&[7; PIECE][..])) {
                Ok(()) => said += 1,
                Err(error) => break error,
            }
            assert!(said * PIECE < HELD && begun.elapsed() < LONG, "{said}");
        };
        assert_eq!(Interrupt::of(&error), Some(Interrupt::Deadline));
        for number in 0..5 {
            crate::site::hear(&mut ws, number, PIECE)?;
        }
        drop(ws);
        stop()
    });
}

/// Who only sends to a peer that takes nothing does not wait for ever.
#[test]
fn a_websocket_that_only_sends_finds_its_peer_lost() {
    in_every_mode(|| {
        let mut limits = Limits::default();
        (limits.ping_interval, limits.pong_time) = (Some(2 * SOON), 10 * SOON);
        let options = Options { limits: Arc::new(limits), ..Options::default() };
        let (lost, is_lost) = mpsc::channel();
        let (url, stop) = serve(options, move |ws| {
            let error = std::iter::repeat_with(|| ws.send(&[7; PIECE][..])).find_map(Result::err);
            let _ = lost.send(error.map(|error| (error.kind(), Interrupt::of(&error))));
        })?;
        let deaf = Options::default().connect(&url)?;
        let mut end = None;
        until("it is given up", || {
            end = is_lost.try_recv().ok();
            end.is_some()
        })?;
        assert_eq!(end, Some(Some((io::ErrorKind::TimedOut, None))));
        drop(deaf);
        stop()
    });
}

/// One in the room is slow: it is given up, and the others hear everything.
#[test]
fn a_room_does_not_wait_for_who_hears_nothing() {
    in_every_mode(|| {
        let rooms = Rooms::new();
        let theirs = rooms.clone();
        let mut limits = Limits::default();
        limits.unsent = 1 << 20;
        let options = Options { limits: Arc::new(limits), ..Options::default() };
        let (url, stop) = serve(options, move |mut ws| {
            let _place = theirs.join("kitchen", &ws);
            while let Ok(Some(_)) = ws.recv() {}
        })?;
        let (deaf, mut guest) = (Options::default().connect(&url)?, Options::default().connect(&url)?);
        until("both are there", || rooms.room("kitchen").len() == 2)?;
        let (mut said, begun) = (0, Instant::now());
        // Until the deaf one is out; each is heard before the next is said.
        while rooms.room("kitchen").len() == 2 {
            rooms.room("kitchen").send(&pattern(said, PIECE));
            crate::site::hear(&mut guest, said, PIECE)?;
            said += 1;
            assert!((said as usize) * PIECE < HELD && begun.elapsed() < LONG, "{said}");
        }
        assert_eq!(rooms.room("kitchen").len(), 1);
        drop((deaf, guest));
        stop()
    });
}

/// One byte after another, both ways: slow is not broken.
#[test]
fn bytes_come_one_by_one() {
    in_every_mode(|| {
        for tls in [false, true] {
            let (site, proxy, at) = crate::proxied(tls)?;
            proxy.set(crate::proxy::Fault::Dribble(1), 0);
            at.echo(http::Method::PUT, 7, 2_000)?;
            at.chat(7, 2, 500)?;
            proxy.set_of(crate::proxy::Of::Client, crate::proxy::Fault::Dribble(1), 0);
            at.echo(http::Method::PUT, 8, 2_000)?;
            at.chat(8, 2, 500)?;
            proxy.set(crate::proxy::Fault::None, 0);
            site.stop()?;
        }
        Ok(())
    });
}
