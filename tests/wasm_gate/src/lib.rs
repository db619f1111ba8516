//! Links every machine of `balrog-proto` into a WebAssembly module for a host that offers nothing.
//! `scripts/wasm_gate.py` builds it and looks at what it would import.

use std::time::Instant;

use balrog_proto::http1::{self, BodyLength, Client, Server};
use balrog_proto::postgres::{Batch, Cancel, CancelKey, Config, Frontend, Parameter, TlsRequest};
use balrog_proto::websocket::{self, Deflate, Peer};
use balrog_proto::{Link, Machine, Step, Transmit};

/// A driver, as generic as one can be.
fn drive<M: Machine>(mut link: Link<M>, now: Instant, bytes: &[u8]) -> usize {
    link.receive(bytes);
    let mut events = 0;
    while let Ok(Step::Event(_)) = link.poll_event(now) {
        events += 1;
    }
    if link.poll_timeout().is_some_and(|at| at <= now) && link.handle_timeout(now).is_err() {
        return 0;
    }
    while let Some(Transmit::Data(segments)) = link.poll_transmit() {
        let sent = segments.map(<[u8]>::len).sum();
        link.transmitted(sent);
        events += sent;
    }
    link.receive_eof();
    events + usize::from(link.interest().read)
}

#[unsafe(no_mangle)]
pub fn http_server(now: Instant, bytes: &[u8]) -> usize {
    let mut link = Link::new(Server::new(http1::Limits::default()));
    link.receive(bytes);
    if link.poll_event(now).is_ok() {
        let answered = link
            .respond(200, "OK", &[(b"X", bytes)], BodyLength::Unknown, false)
            .and_then(|()| link.body(bytes))
            .and_then(|()| link.finish());
        if answered.is_err() {
            link.abort();
        }
    }
    drive(link, now, bytes)
}

#[unsafe(no_mangle)]
pub fn http_client(now: Instant, bytes: &[u8]) -> usize {
    let mut link = Link::new(Client::new(http1::Limits::default()));
    let sent = link
        .request("PUT", "/", "a", &[(b"X", bytes)], BodyLength::Unknown)
        .and_then(|()| link.body(bytes))
        .and_then(|()| link.finish());
    if sent.is_err() { 0 } else { drive(link, now, bytes) }
}

#[unsafe(no_mangle)]
pub fn websocket(now: Instant, bytes: &[u8]) -> usize {
    let peer = Peer::client(websocket::Limits::default(), Box::new(|bytes: &mut [u8]| bytes.fill(7)));
    let mut link = Link::new(peer.deflate(&Deflate::default()));
    let sent = link
        .send_text("text")
        .and_then(|()| link.send_binary(bytes))
        .and_then(|()| link.ping(bytes))
        .and_then(|()| link.close(1000, "done"));
    if sent.is_err() { 0 } else { drive(link, now, bytes) }
}

#[unsafe(no_mangle)]
pub fn postgres(now: Instant, bytes: &[u8]) -> usize {
    let Ok(frontend) = Frontend::new(Config::new(bytes), &mut |bytes: &mut [u8]| bytes.fill(7)) else {
        return 0;
    };
    let mut link = Link::new(TlsRequest::new(false, None)).replace(frontend);
    link.receive(bytes);
    while let Ok(Step::Event(event)) = link.poll_event(now) {
        if let balrog_proto::postgres::FrontendEvent::DeriveKey(job) = event {
            let key = job.finish();
            if link.key_derived(&key).is_err() {
                break;
            }
        }
    }
    let mut batch = Batch::new();
    let sent = batch
        .query("select $1", &[Parameter::Binary(bytes)])
        .and_then(|batch| link.send(batch.sync()))
        .and_then(|_| link.copy_data(bytes));
    match (sent, CancelKey::new(0, bytes)) {
        (Ok(()), Ok(key)) => drive(link, now, bytes) + drive(Link::new(Cancel::new(key, None)), now, bytes),
        _ => drive(link, now, bytes),
    }
}
