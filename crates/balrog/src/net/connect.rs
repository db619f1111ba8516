//! Names, and connecting to the first of several addresses that answers (RFC 8305).

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use balrog_backends::{Interest, Interrupt, offload, wait_io};
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

/// "Connection Attempt Delay: [...] RECOMMENDED to be 250 milliseconds." (RFC 8305 section 8)
const STAGGER: Duration = Duration::from_millis(250);

/// The addresses of `host`, a name or an address (IPv6 in brackets or not); looked up off the
/// scheduler's thread, until the deadline. IPv6 and IPv4 take turns, the system's choice first.
///
/// # Errors
///
/// `InvalidInput` for what only looks like an IPv4 address (`127.1`, `0x7f000001`), `TimedOut`,
/// the resolver's own, and interrupts.
pub fn resolve(host: &str, port: u16, deadline: Option<Instant>) -> io::Result<Vec<SocketAddr>> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    if ends_in_number(bare) {
        let why = format!("{host} is neither a name nor an IPv4 address of four decimal numbers");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let name = bare.to_owned();
    let found: Vec<SocketAddr> =
        offload(move || (name.as_str(), port).to_socket_addrs().map(Iterator::collect), deadline)??;
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address")));
    }
    Ok(take_turns(found))
}

/// What resolvers read as a number in ways that filters of addresses do not expect.
fn ends_in_number(host: &str) -> bool {
    let last = host.strip_suffix('.').unwrap_or(host).rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    !last.is_empty()
        && (last.bytes().all(|byte| byte.is_ascii_digit())
            || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit())))
}

/// Interleaves the families (RFC 8305 section 4).
fn take_turns(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first = found[0].is_ipv4();
    let (ours, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|it| it.is_ipv4() == first);
    let mut turns = Vec::with_capacity(ours.len() + others.len());
    let (mut ours, mut others) = (ours.into_iter(), others.into_iter());
    loop {
        let (one, other) = (ours.next(), others.next());
        if one.is_none() && other.is_none() {
            return turns;
        }
        turns.extend(one.into_iter().chain(other));
    }
}

pub(super) fn race(addresses: Vec<SocketAddr>, deadline: Option<Instant>) -> io::Result<TcpStream> {
    let mut left = addresses.into_iter();
    let mut attempts = Attempts { sockets: Vec::new(), epoll: None };
    let mut first_error = None;
    loop {
        if let Some(address) = left.next() {
            match attempts.begin(address) {
                Ok(Some(stream)) => return Ok(stream),
                Ok(None) => {}
                Err(error) => {
                    first_error.get_or_insert(error);
                    continue;
                }
            }
        }
        let next = (left.len() > 0).then(|| Instant::now() + STAGGER);
        while !attempts.sockets.is_empty() {
            let until = [next, deadline].into_iter().flatten().min();
            match attempts.wait(until) {
                Ok(()) => {}
                // Time for the next address; an outer deadline that passed as well is met by its wait.
                Err(error)
                    if Interrupt::of(&error) == Some(Interrupt::Deadline)
                        && next.is_some_and(|next| next <= Instant::now())
                        && deadline.is_none_or(|at| at > Instant::now()) =>
                {
                    break;
                }
                Err(error) => return Err(error),
            }
            match attempts.finished() {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => {
                    first_error.get_or_insert(error);
                    if left.len() > 0 {
                        break;
                    }
                }
                None => {}
            }
        }
        if left.len() == 0 && attempts.sockets.is_empty() {
            return Err(first_error.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
        }
    }
}

/// Connections that are being made.
struct Attempts {
    sockets: Vec<OwnedFd>,
    /// All of them as one descriptor to wait for; a single one is waited for itself.
    epoll: Option<OwnedFd>,
}

impl Attempts {
    fn begin(&mut self, address: SocketAddr) -> io::Result<Option<TcpStream>> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        match connect(&socket, &address) {
            Ok(()) => return Ok(Some(TcpStream::from(socket))),
            Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        if self.epoll.is_none() && !self.sockets.is_empty() {
            self.epoll = Some(epoll::create(epoll::CreateFlags::CLOEXEC)?);
            for earlier in &self.sockets {
                self.watch(earlier)?;
            }
        }
        self.watch(&socket)?;
        self.sockets.push(socket);
        Ok(None)
    }

    fn watch(&self, socket: &OwnedFd) -> io::Result<()> {
        if let Some(epoll) = &self.epoll {
            epoll::add(epoll, socket, epoll::EventData::new_u64(0), epoll::EventFlags::OUT)?;
        }
        Ok(())
    }

    fn wait(&self, until: Option<Instant>) -> io::Result<()> {
        match &self.epoll {
            Some(epoll) => wait_io(epoll.as_fd(), Interest::Readable, until)?,
            None => wait_io(self.sockets[0].as_fd(), Interest::Writable, until)?,
        }
        Ok(())
    }

    /// The first that has come to an end, if any has.
    fn finished(&mut self) -> Option<io::Result<TcpStream>> {
        for index in 0..self.sockets.len() {
            let socket = &self.sockets[index];
            match sockopt::socket_error(socket) {
                // Still under way, or done: only a socket with a peer is connected.
                Ok(Ok(())) if rustix::net::getpeername(socket).is_err() => {}
                Ok(Ok(())) => return Some(Ok(TcpStream::from(self.sockets.swap_remove(index)))),
                Ok(Err(error)) | Err(error) => {
                    self.sockets.remove(index);
                    return Some(Err(error.into()));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn soon(millis: u64) -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(millis))
    }

    /// A listener whose queue is full: its kernel leaves further connections without an answer.
    struct Deaf {
        listener: TcpListener,
        _queued: Vec<OwnedFd>,
    }

    impl Deaf {
        fn new(address: &str) -> Self {
            let listener = TcpListener::bind(address).unwrap();
            let full = rustix::net::listen(&listener, 0);
            full.unwrap();
            let at = listener.local_addr().unwrap();
            let queued = (0..3)
                .map(|_| {
                    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
                    let _ = connect(&socket, &at);
                    socket
                })
                .collect();
            std::thread::sleep(Duration::from_millis(20));
            Self { listener, _queued: queued }
        }

        fn address(&self) -> SocketAddr {
            self.listener.local_addr().unwrap()
        }
    }

    #[test]
    fn a_silent_address_costs_a_quarter_of_a_second() {
        let deaf = Deaf::new("127.0.0.1:0");
        let good = TcpListener::bind("127.0.0.2:0").unwrap();
        let good = good.local_addr().unwrap();
        let begun = Instant::now();
        let stream = race(vec![deaf.address(), good], soon(5_000)).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        let took = begun.elapsed();
        assert!(took >= STAGGER && took < Duration::from_secs(2), "{took:?}");
    }

    #[test]
    fn a_refusing_address_costs_nothing() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let good = TcpListener::bind("127.0.0.2:0").unwrap();
        let good = good.local_addr().unwrap();
        let begun = Instant::now();
        assert_eq!(race(vec![gone, good], soon(5_000)).unwrap().peer_addr().unwrap(), good);
        assert!(begun.elapsed() < STAGGER);
        let refused = race(vec![gone, gone], soon(5_000)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn the_first_may_still_win_and_the_deadline_is_kept() {
        let deaf = Deaf::new("127.0.0.1:0");
        let begun = Instant::now();
        let error = race(vec![deaf.address(), deaf.address(), deaf.address()], soon(600)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(600) && took < Duration::from_secs(2), "{took:?}");
    }

    #[test]
    fn families_take_turns() {
        let all: Vec<SocketAddr> =
            ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"].iter().map(|it| it.parse().unwrap()).collect();
        let turns: Vec<String> = take_turns(all).iter().map(ToString::to_string).collect();
        assert_eq!(turns, ["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]);
    }

    #[test]
    fn numbers_that_are_no_addresses_are_refused() {
        for host in [
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "1.2.3.4.5",
            "a.0x",
            "127.0.0.1.",
            "256.1.1.1",
        ] {
            let error = resolve(host, 80, soon(5_000)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{host}");
        }
        assert_eq!(resolve("[::1]", 80, None).unwrap(), ["[::1]:80".parse().unwrap()]);
        assert!(!ends_in_number("example.com.") && !ends_in_number("a1") && !ends_in_number("1.a"));
    }
}
