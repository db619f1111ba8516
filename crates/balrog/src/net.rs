//! Sockets whose waits are those of the place where the code runs.
//!
//! Each is used as its namesake in [`std::net`] or [`std::os::unix::net`]: on a plain thread a
//! read blocks it, in a task it lets other tasks run. They are [`Read`](std::io::Read) and
//! [`Write`](std::io::Write), so synchronous libraries run on top of them unchanged.

mod any;
mod connect;
mod listener;
mod stream;
mod transport;
mod udp;

pub use any::AnyStream;
pub use connect::resolve;
pub use listener::{Listen, TcpListener, UnixListener};
pub use stream::{Stream, TcpStream, UnixStream};
pub use transport::{Timeouts, Transport};
pub use udp::UdpSocket;

pub(crate) use any::Waiter;
pub(crate) use transport::{read_and_write, retry};
