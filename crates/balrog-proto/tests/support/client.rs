use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balrog_proto::postgres::{
    Cancel, CancelKey, Channel, Config, Frontend, FrontendEvent, Piece, TlsAnswer, TlsRequest,
};
use balrog_proto::{Link, Machine, Step};
use rustix::event::{PollFd, PollFlags, poll};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::Server;

pub trait Stream: Read + Write {
    fn fd(&self) -> BorrowedFd<'_>;
}

impl Stream for TcpStream {
    fn fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

impl Stream for UnixStream {
    fn fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

impl Stream for StreamOwned<ClientConnection, TcpStream> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.sock.as_fd()
    }
}

/// Drives any machine over any stream until `take` says that it has what it wants, or the
/// connection is over.
pub fn drive<M: Machine>(
    link: &mut Link<M>,
    stream: &mut dyn Stream,
    mut take: impl FnMut(Step<M::Event<'_>>) -> bool,
) -> Result<(), String> {
    let mut buffer = [0; 16 * 1024];
    loop {
        loop {
            match link.poll_event(Instant::now()) {
                Ok(step @ Step::Event(_)) => {
                    if take(step) {
                        return Ok(());
                    }
                }
                Ok(step @ (Step::Closed | Step::Paused)) => {
                    take(step);
                    return Ok(());
                }
                Ok(Step::NeedInput) => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        while let Some(bytes) = link.transmit() {
            match stream.write(bytes) {
                Ok(n) => link.transmitted(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => break, // what the server said before it hung up is still to be read
            }
        }
        let _ = stream.flush();
        match stream.read(&mut buffer) {
            Ok(0) => link.receive_eof(),
            Ok(n) => link.receive(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait(link, stream)?,
            Err(_) => link.receive_eof(),
        }
    }
}

fn wait<M: Machine>(link: &mut Link<M>, stream: &dyn Stream) -> Result<(), String> {
    let now = Instant::now();
    let until = link.poll_timeout().unwrap_or(now + Duration::from_secs(60));
    let time = until.saturating_duration_since(now).min(Duration::from_secs(60));
    let flags = if link.interest().write { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let fd = stream.fd();
    let timeout =
        rustix::time::Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    let ready = poll(&mut [PollFd::new(&fd, flags)], Some(&timeout)).map_err(|error| error.to_string())?;
    if ready == 0 && link.poll_timeout().is_none() {
        return Err("nothing came for a minute".into());
    }
    link.handle_timeout(Instant::now()).map_err(|error| error.to_string())
}

pub struct Client {
    pub link: Link<Frontend>,
    pub stream: Box<dyn Stream>,
    pub events: Vec<String>,
}

impl Client {
    /// The superuser, over the Unix socket.
    pub fn admin(server: &Server) -> Self {
        let mut config = Config::new("postgres");
        config.database = Some(b"balrog".to_vec());
        Self::local(server, config).unwrap()
    }

    /// Over the Unix socket.
    pub fn local(server: &Server, config: Config) -> Result<Self, String> {
        let path = server.directory.join(format!(".s.PGSQL.{}", server.port));
        let stream = UnixStream::connect(path).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self::start(Box::new(stream), config)
    }

    /// Over TCP, without TLS.
    pub fn tcp(server: &Server, config: Config) -> Result<Self, String> {
        Self::start(Box::new(tcp(server)), config)
    }

    /// Over TLS, asked for by SSLRequest.
    pub fn tls(server: &Server, tls: Arc<ClientConfig>, mut config: Config) -> Result<Self, String> {
        if config.channel == Channel::Plain {
            config.channel = Channel::Tls { end_point: Some(server.end_point()) };
        }
        Self::start(Box::new(encrypted(server, tls)?), config)
    }

    fn start(mut stream: Box<dyn Stream>, config: Config) -> Result<Self, String> {
        let mut entropy = |bytes: &mut [u8]| {
            std::fs::File::open("/dev/urandom").unwrap().read_exact(bytes).unwrap();
        };
        let frontend = Frontend::new(config, &mut entropy).map_err(|misuse| misuse.to_string())?;
        let mut link = Link::new(frontend);
        let mut events = Vec::new();
        loop {
            let mut job = None;
            drive(&mut link, &mut *stream, |step| {
                match step {
                    Step::Event(FrontendEvent::DeriveKey(it)) => job = Some(it),
                    Step::Event(event) => events.push(show(&event)),
                    _ => {}
                }
                job.is_some() || events.last().is_some_and(|event| event == "started")
            })?;
            match job {
                Some(job) => link.key_derived(&job.finish()).unwrap(),
                None if events.last().is_some_and(|event| event == "started") => break,
                None => return Err(events.pop().unwrap_or_default()),
            }
        }
        Ok(Self { link, stream, events: Vec::new() })
    }

    /// All events until nothing is outstanding, or up to and including one that begins with `until`.
    pub fn read(&mut self, until: &str) -> Vec<String> {
        let mut events = std::mem::take(&mut self.events);
        if self.link.is_idle() && until.is_empty() {
            return events;
        }
        loop {
            let mut over = false;
            let outcome = drive(&mut self.link, &mut *self.stream, |step| {
                let Step::Event(event) = step else {
                    over = true;
                    return true;
                };
                let stop = matches!(event, FrontendEvent::Ready { .. });
                events.push(show(&event));
                if until.is_empty() { stop } else { events.last().is_some_and(|it| it.starts_with(until)) }
            });
            if let Err(error) = outcome {
                events.push(format!("failed: {error}"));
                return events;
            }
            if over || !until.is_empty() || self.link.is_idle() {
                return events;
            }
        }
    }

    /// Hands everything to the connection that waits, and waits until the server sleeps over it.
    pub fn put_to_sleep(&mut self, admin: &mut Self) {
        while let Some(bytes) = self.link.transmit() {
            let n = self.stream.write(bytes).unwrap();
            self.link.transmitted(n);
        }
        let process = self.link.key().unwrap().process();
        let asleep =
            format!("select 1 from pg_stat_activity where pid = {process} and wait_event = 'PgSleep'");
        while admin.run(&asleep).len() < 3 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A simple query and its results, without the last `ready` of an idle session.
    pub fn run(&mut self, sql: &str) -> Vec<String> {
        self.link.query(sql).unwrap();
        let mut events = self.read("");
        if events.last().is_some_and(|it| it.ends_with("Idle")) {
            events.pop();
        }
        events
    }
}

fn tcp(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

fn encrypted(
    server: &Server,
    tls: Arc<ClientConfig>,
) -> Result<StreamOwned<ClientConnection, TcpStream>, String> {
    let mut stream = tcp(server);
    let mut link = Link::new(TlsRequest::new(true, Some(Duration::from_secs(5))));
    let mut answer = None;
    drive(&mut link, &mut stream, |step| {
        if let Step::Event(it) = step {
            answer = Some(it);
        }
        true
    })?;
    assert_eq!((answer, link.unread()), (Some(TlsAnswer::Accepted), 0));
    let session = ClientConnection::new(tls, "localhost".try_into().unwrap()).unwrap();
    stream.set_nonblocking(false).unwrap();
    let mut stream = StreamOwned::new(session, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).map_err(|error| error.to_string())?;
    }
    stream.sock.set_nonblocking(true).unwrap();
    Ok(stream)
}

/// Sends a cancel request, through TLS or not.
pub fn cancel(server: &Server, tls: Option<Arc<ClientConfig>>, key: CancelKey) -> Result<(), String> {
    let mut stream: Box<dyn Stream> = match tls {
        Some(tls) => Box::new(encrypted(server, tls)?),
        None => Box::new(tcp(server)),
    };
    let mut link = Link::new(Cancel::new(key, Some(Duration::from_secs(5))));
    drive(&mut link, &mut *stream, |_| true)
}

/// An event in one line.
pub fn show(event: &FrontendEvent<'_>) -> String {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    match event {
        FrontendEvent::DeriveKey(_) => "derive".into(),
        FrontendEvent::Started => "started".into(),
        FrontendEvent::Ready { unit, status } => format!("ready {} {status:?}", unit.0),
        FrontendEvent::ServerError(report) => format!("error {} {}", report.code(), report.message()),
        FrontendEvent::Notice(report) => format!("notice {} {}", report.code(), report.message()),
        FrontendEvent::Notification { channel, payload, .. } => {
            format!("notification {} {}", text(channel), text(payload))
        }
        FrontendEvent::Parameter { name, value } => format!("parameter {}={}", text(name), text(value)),
        FrontendEvent::Columns(columns) => {
            let names = columns.iter().map(|column| format!(" {}:{}", text(&column.name), column.type_oid));
            format!("columns{}", names.collect::<String>())
        }
        FrontendEvent::Row(row) => {
            let values = row.values().map(|value| match value {
                Ok(value) => value.map_or("NULL".into(), text),
                Err(error) => format!("BAD: {error}"),
            });
            format!("row {}", values.collect::<Vec<_>>().join("|"))
        }
        FrontendEvent::Piece(Piece::Data(data)) => format!("data {}", data.len()),
        FrontendEvent::Complete { tag } => format!("complete {}", text(tag)),
        FrontendEvent::CopyData { data, last } if data.len() < 100 => format!("copied {} {last}", text(data)),
        FrontendEvent::CopyData { data, last } => format!("copied {} bytes {last}", data.len()),
        FrontendEvent::CopyIn(format) => format!("copy in {:?} {}", format.overall, format.columns().len()),
        FrontendEvent::CopyOut(format) => format!("copy out {:?} {}", format.overall, format.columns().len()),
        FrontendEvent::Parameters(types) => format!("parameters {types:?}"),
        other => format!("{other:?}").to_lowercase(),
    }
}
