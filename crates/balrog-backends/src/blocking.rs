use std::io;
use std::os::fd::BorrowedFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use balrog_sched::Interrupt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{Backend, Interest};

/// The plain thread: a wait blocks it, in `poll(2)` with the deadline.
#[derive(Debug)]
pub struct Blocking;

impl Backend for Blocking {
    fn wait_io(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        deadline: Option<Instant>,
    ) -> Result<(), Interrupt> {
        loop {
            let until = balrog_sched::limit(deadline)?;
            match poll_once(fd, interest, until) {
                Ok(true) => return Ok(()),
                // Whose deadline it was is found out above.
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // `EINVAL`, `ENOMEM`: let the caller's own system call say what is wrong.
                Err(_) => return Ok(()),
            }
        }
    }

    fn offload(&self, job: Box<dyn FnOnce() + Send>, deadline: Option<Instant>) -> Result<(), Interrupt> {
        let Some(until) = balrog_sched::limit(deadline)? else {
            job();
            return Ok(());
        };
        // A job has no time-out of its own, so only another thread can be left behind.
        let (done, wait) = mpsc::sync_channel(1);
        let queued = crate::execute(Box::new(move || {
            job();
            let _ = done.send(());
        }));
        if queued.is_err() {
            return Err(Interrupt::Closed);
        }
        match wait.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(balrog_sched::limit(deadline).err().unwrap_or(Interrupt::Deadline))
            }
            // A job that panicked disconnects; its caller sees the missing result.
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => Ok(()),
        }
    }
}

/// One `poll(2)`: `false` means that the deadline passed, `EINTR` is an error.
///
/// # Errors
///
/// Whatever `poll(2)` gives, `ErrorKind::Interrupted` when a signal came in.
pub fn poll_once(fd: BorrowedFd<'_>, interest: Interest, deadline: Option<Instant>) -> io::Result<bool> {
    let flags = match interest {
        Interest::Readable => PollFlags::IN,
        Interest::Writable => PollFlags::OUT,
        Interest::Both => PollFlags::IN | PollFlags::OUT,
    };
    let timeout = deadline.map(|at| timespec(at.saturating_duration_since(Instant::now())));
    let ready = poll(&mut [PollFd::from_borrowed_fd(fd, flags)], timeout.as_ref())?;
    Ok(ready > 0)
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    fn soon() -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(20))
    }

    #[test]
    fn waits_for_readiness_or_the_deadline() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!(Blocking.wait_io(theirs.as_fd(), Interest::Readable, soon()), Err(Interrupt::Deadline));
        ours.write_all(b"x").unwrap();
        assert_eq!(Blocking.wait_io(theirs.as_fd(), Interest::Readable, None), Ok(()));
        assert_eq!(Blocking.wait_io(theirs.as_fd(), Interest::Both, soon()), Ok(()));
    }

    #[test]
    fn offload_gives_the_result_or_the_deadline() {
        assert_eq!(crate::offload(|| 41 + 1, None), Ok(42));
        assert_eq!(crate::offload(|| 41 + 1, Some(Instant::now() + Duration::from_secs(5))), Ok(42));
        let slow = || std::thread::sleep(Duration::from_millis(200));
        assert_eq!(crate::offload(slow, soon()), Err(Interrupt::Deadline));
    }
}
