//! What the programs of the benchmark share: what is asked, the hand-written loop that asks it, and
//! what this process has spent.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::{ClockId, clock_gettime};

/// The body of every HTTP answer.
pub const HELLO: &str = "Hello, world!";
/// The smallest request.
pub const PLAIN: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// What a browser sends: 713 bytes, 15 fields.
pub const BROWSER: &[u8] = include_bytes!("../../browser.http");

/// The processor's time of this process, in microseconds.
pub fn spent() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 * 1e6 + spent.tv_nsec as f64 / 1e3
}

/// Serves each connection in a task of this thread, as users of tokio and hyper do.
pub async fn serve<F: Future<Output: 'static> + 'static>(
    address: &str,
    each: impl Fn(TokioIo<tokio::net::TcpStream>) -> F + 'static,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    let serving = async move {
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(each(TokioIo::new(stream)));
        }
    };
    tokio::task::LocalSet::new().run_until(serving).await
}

/// What to send again and again, and what has to come back each time.
pub struct Question {
    /// All requests that are sent at once.
    pub request: Vec<u8>,
    /// How long the answer to one of them is.
    pub length: usize,
    /// How each ends: all of it, or what follows a date.
    pub end: Vec<u8>,
    /// How many are asked at once.
    pub depth: usize,
}

/// What came of asking.
pub struct Outcome {
    /// How many answers, all of them right.
    pub count: u64,
    /// How long it took.
    pub time: Duration,
    /// How long what was asked at once took in 99 of 100 cases.
    pub p99: Duration,
}

impl Question {
    /// Of HTTP requests, `depth` at a time. The first answer of `stream` says how long they are.
    pub fn http(stream: &mut TcpStream, request: &[u8], depth: usize) -> io::Result<Self> {
        stream.write_all(request)?;
        let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
        while !answer.ends_with(HELLO.as_bytes()) {
            match stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => answer.extend_from_slice(&piece[..n]),
            }
        }
        check(answer.starts_with(b"HTTP/1.1 200 "), "not a 200")?;
        let end = [&b"\r\n\r\n"[..], HELLO.as_bytes()].concat();
        check(answer.ends_with(&end), "another body")?;
        Ok(Self { request: request.repeat(depth), length: answer.len(), end, depth })
    }

    /// Asks on each of `streams` as soon as it has answered, for so long.
    pub fn ask(&self, streams: Vec<TcpStream>, time: Duration) -> io::Result<Outcome> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut askers = Vec::with_capacity(streams.len());
        for (stream, number) in streams.into_iter().zip(0..) {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let events = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
            epoll::add(&epoll, &stream, EventData::new_u64(number), events)?;
            askers.push(Asker::new(stream, self.length * self.depth));
        }
        let start = Instant::now();
        for asker in &mut askers {
            asker.send(self)?;
        }
        let (mut events, mut took) = (Vec::with_capacity(askers.len()), Vec::new());
        while start.elapsed() < time {
            events.clear();
            epoll::wait(&epoll, spare_capacity(&mut events), None)?;
            for event in &events {
                let asker = &mut askers[event.data.u64() as usize];
                if asker.sent < self.request.len() {
                    asker.send(self)?;
                }
                if asker.receive(self)? {
                    took.push(asker.since.elapsed());
                    asker.begin();
                    asker.send(self)?;
                }
            }
        }
        let time = start.elapsed();
        let (count, at) = (took.len(), took.len() * 99 / 100);
        check(count > 0, "no answer")?;
        let (_, p99, _) = took.select_nth_unstable(at);
        Ok(Outcome { count: (count * self.depth) as u64, time, p99: *p99 })
    }
}

/// A connection with one question under way.
struct Asker {
    stream: TcpStream,
    sent: usize,
    answer: Vec<u8>,
    received: usize,
    since: Instant,
}

impl Asker {
    fn new(stream: TcpStream, length: usize) -> Self {
        Self { stream, sent: 0, answer: vec![0; length], received: 0, since: Instant::now() }
    }

    fn begin(&mut self) {
        (self.sent, self.received, self.since) = (0, 0, Instant::now());
    }

    /// Sends what there is room for.
    fn send(&mut self, question: &Question) -> io::Result<()> {
        while self.sent < question.request.len() {
            match self.stream.write(&question.request[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what is there; whether the answer is complete.
    fn receive(&mut self, question: &Question) -> io::Result<bool> {
        while self.received < self.answer.len() {
            match self.stream.read(&mut self.answer[self.received..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.received += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        let mut answers = self.answer.chunks(question.length);
        check(answers.all(|answer| answer.ends_with(&question.end)), "another answer")?;
        Ok(true)
    }
}

/// An error that says `what` unless it is `right`.
pub fn check(right: bool, what: &str) -> io::Result<()> {
    if right { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, what)) }
}
