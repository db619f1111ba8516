//! Sockets, TLS and runtimes: one body in every mode.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream as Plain;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use balrog::net::{Listen, TcpListener, TcpStream, Transport, UdpSocket, UnixListener, UnixStream};
use balrog::tls::{TlsAcceptor, TlsConfig};
use balrog::{Interrupt, Runtime, spawn};

const SOON: Duration = Duration::from_millis(30);

fn in_every_mode(body: fn()) {
    for runtime in Runtime::all() {
        runtime.run(body).unwrap();
    }
}

fn later() -> Option<Instant> {
    Some(Instant::now() + Duration::from_secs(20))
}

#[test]
fn more_than_a_buffer_goes_both_ways_at_once_over_tcp() {
    in_every_mode(|| {
        const MUCH: usize = 4 << 20;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = spawn(move || TcpStream::connect("localhost", port, later()).unwrap()).unwrap();
        let (server, _) = listener.accept_until(later()).unwrap();
        let mut client = client;
        let ends = [Arc::new(client.join().unwrap()), Arc::new(server)];
        let mut tasks = Vec::new();
        for end in ends {
            let writer = Arc::clone(&end);
            tasks.push(spawn(move || (&*writer).write_all(&vec![7; MUCH]).map(|()| MUCH)).unwrap());
            let read = move || {
                let mut bytes = vec![0; MUCH];
                (&*end).read_exact(&mut bytes).map(|()| bytes.iter().filter(|byte| **byte == 7).count())
            };
            tasks.push(spawn(read).unwrap());
        }
        for mut task in tasks {
            assert_eq!(task.join().unwrap().unwrap(), MUCH);
        }
    });
}

#[test]
fn unix_sockets_and_time_outs() {
    in_every_mode(|| {
        let folder = tempfile();
        let path = folder.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let there = path.clone();
        let mut client = spawn(move || UnixStream::connect(there, later()).unwrap()).unwrap();
        let mut server = listener.accept_until(later()).unwrap();
        let mut client = client.join().unwrap();
        client.timeouts.read = Some(SOON);
        let begun = Instant::now();
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!((error.kind(), Interrupt::of(&error)), (ErrorKind::TimedOut, Some(Interrupt::Deadline)));
        assert!(begun.elapsed() >= SOON);
        // Full both ways, a write times out, too.
        client.timeouts.write = Some(SOON);
        let error = client.write_all(&vec![0; 16 << 20]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        // Nothing is broken by it: what went in comes out.
        client.shutdown().unwrap();
        assert!(server.read_to_end(&mut Vec::new()).unwrap() > 1000);
        assert_eq!(
            listener.accept_until(Some(Instant::now() + SOON)).unwrap_err().kind(),
            ErrorKind::TimedOut
        );
        std::fs::remove_dir_all(folder).unwrap();
    });
}

#[test]
fn datagrams() {
    in_every_mode(|| {
        let one = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (at, from) = (other.local_addr().unwrap(), one.local_addr().unwrap());
        let mut sender = spawn(move || one.send_to(b"hello", at)).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(other.recv_from(&mut buffer).unwrap(), (5, from));
        assert_eq!(sender.join().unwrap().unwrap(), 5);
        other.timeouts.read = Some(SOON);
        assert_eq!(other.recv(&mut buffer).unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn tls_both_ways_with_a_client_s_certificate() {
    in_every_mode(|| {
        const MUCH: usize = 1 << 20;
        let pem = certificate();
        let acceptor = TlsAcceptor::new(&pem, &pem, Some(&pem)).unwrap();
        let config = TlsConfig::new(Some(&pem), Some((&pem, &pem))).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = move || {
            let stream = TcpStream::connect("127.0.0.1", port, later()).unwrap();
            let mut stream = config.connect("localhost", stream).unwrap();
            stream.write_all(&vec![1; MUCH]).unwrap();
            stream.flush().unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            got.len()
        };
        let mut client = spawn(client).unwrap();
        let (stream, _) = listener.accept_until(later()).unwrap();
        let mut stream = acceptor.accept(stream).unwrap();
        assert_eq!(stream.session().peer_certificates().map(<[_]>::len), Some(1));
        assert_eq!(stream.session().alpn_protocol(), Some(&b"http/1.1"[..]));
        stream.read_exact(&mut vec![0; MUCH]).unwrap();
        stream.write_all(&vec![2; MUCH]).unwrap();
        // With a good-bye the end is an end, not a cut.
        stream.shutdown().unwrap();
        assert_eq!(client.join().unwrap(), MUCH);
    });
}

#[test]
fn a_cut_of_tls_is_no_end_and_a_stranger_is_told() {
    in_every_mode(|| {
        let pem = certificate();
        let acceptor = TlsAcceptor::new(&pem, &pem, None).unwrap();
        let config = TlsConfig::new(Some(&pem), None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = move || {
            let stream = TcpStream::connect("127.0.0.1", port, later()).unwrap();
            let mut stream = config.connect("localhost", stream).unwrap();
            let cut = stream.read_to_end(&mut Vec::new()).unwrap_err();
            let stream = TcpStream::connect("127.0.0.1", port, later()).unwrap();
            let wrong = config.connect("other.example", stream).unwrap_err();
            (cut.kind(), wrong.kind())
        };
        let mut client = spawn(client).unwrap();
        let (stream, _) = listener.accept_until(later()).unwrap();
        let mut stream = acceptor.accept(stream).unwrap();
        stream.write_all(b"half of it").unwrap();
        drop(stream);
        let (stream, _) = listener.accept_until(later()).unwrap();
        // The client's alert comes while or after the server's part of the handshake.
        let refused = acceptor.accept(stream).and_then(|mut stream| stream.read(&mut [0]));
        assert!(refused.is_err());
        assert_eq!(client.join().unwrap(), (ErrorKind::UnexpectedEof, ErrorKind::InvalidData));
    });
}

#[test]
fn loops_share_an_address() {
    let first = Listen { reuse_port: true, ..Listen::default() }.tcp("127.0.0.1:0").unwrap();
    let address = first.local_addr().unwrap();
    let listeners: Vec<_> = [first]
        .into_iter()
        .chain((0..1).map(|_| Listen { reuse_port: true, ..Listen::default() }.tcp(address).unwrap()))
        .map(|listener| std::sync::Mutex::new(Some(listener)))
        .collect();
    let clients = std::thread::spawn(move || {
        for _ in 0..64 {
            let mut stream = Plain::connect(address).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 1);
        }
        for _ in 0..200 {
            // One for whichever loop still listens.
            let _ = Plain::connect(address);
        }
    });
    let served = Runtime::native()
        .run_on(2, move |number| {
            let listener = listeners[number].lock().unwrap().take().unwrap();
            let mut served = 0;
            while let Ok((mut stream, _)) =
                listener.accept_until(Some(Instant::now() + Duration::from_secs(1)))
            {
                served += usize::from(stream.write_all(b"x").is_ok());
            }
            served
        })
        .unwrap();
    clients.join().unwrap();
    assert!(served.iter().all(|served| *served > 0), "{served:?}");
}

#[test]
fn other_threads_and_async_programs_give_work_to_a_runtime() {
    for runtime in Runtime::all() {
        let handle = runtime.start().unwrap();
        let tasks: Vec<_> = (0..20)
            .map(|number| {
                let work = move || {
                    balrog::sleep_until(Instant::now() + SOON).unwrap();
                    number
                };
                handle.spawn(work).unwrap()
            })
            .collect();
        let begun = Instant::now();
        let sum: i32 = tasks.into_iter().map(|mut task| task.join().unwrap()).sum();
        assert_eq!(sum, 190);
        // At the same time, not one after another.
        assert!(begun.elapsed() < 15 * SOON, "{:?}", begun.elapsed());
        let cancelled =
            handle.spawn(|| balrog::sleep_until(Instant::now() + Duration::from_secs(2))).unwrap();
        cancelled.cancel();
        let mut panics = handle.spawn(|| panic!("on purpose")).unwrap();
        assert!(panics.join().is_err());
        let mut cancelled = cancelled;
        if *runtime != Runtime::blocking() {
            assert_eq!(cancelled.join().unwrap(), Err(Interrupt::Cancelled));
        }
    }
}

#[test]
fn runtimes_have_names() {
    for runtime in Runtime::all() {
        assert_eq!(runtime.to_string().parse::<Runtime>().unwrap(), *runtime);
    }
    let error = "fibres".parse::<Runtime>().unwrap_err().to_string();
    assert!(error.contains("fibres") && error.contains("blocking, native"), "{error}");
}

fn tempfile() -> PathBuf {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("balrog-net-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A PEM file with a self-signed certificate of `localhost` and its key.
fn certificate() -> PathBuf {
    static PEM: OnceLock<PathBuf> = OnceLock::new();
    PEM.get_or_init(|| {
        let path = tempfile().join("both.pem");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&path, made.cert.pem() + &made.signing_key.serialize_pem()).unwrap();
        path
    })
    .clone()
}
