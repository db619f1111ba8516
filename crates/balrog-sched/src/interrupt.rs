use std::{error, fmt, io};

/// Why a wait ended without what it waited for.
///
/// Every wait of balrog returns one of these instead of unwinding, so that code leaves by its
/// own error path and its destructors run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interrupt {
    /// The task was cancelled; clean-up may wait again within its grace time.
    Cancelled,
    /// A deadline passed: that of the call, or an enclosing one of the task.
    Deadline,
    /// The thread is unwinding a panic, so no other task may run now.
    Unwinding,
    /// The task's scheduler is going away; every further wait fails the same way.
    Closed,
}

impl fmt::Display for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "the task was cancelled while it waited",
            Self::Deadline => "the deadline passed while waiting",
            Self::Unwinding => "cannot wait while a panic unwinds",
            Self::Closed => "the scheduler is shutting down",
        })
    }
}

impl error::Error for Interrupt {}

/// A deadline becomes `TimedOut`, all else `Other` with the interrupt as its source.
///
/// Never `ErrorKind::Interrupted`: std's `read_exact` and `write_all` retry that for ever.
impl From<Interrupt> for io::Error {
    fn from(interrupt: Interrupt) -> Self {
        let kind = match interrupt {
            Interrupt::Deadline => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, interrupt)
    }
}

impl Interrupt {
    /// The interrupt inside an I/O error, if one was what ended it.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_trip_through_io_error() {
        for interrupt in [Interrupt::Cancelled, Interrupt::Deadline, Interrupt::Unwinding, Interrupt::Closed]
        {
            let error = io::Error::from(interrupt);
            assert_eq!(Interrupt::of(&error), Some(interrupt));
            assert_ne!(error.kind(), io::ErrorKind::Interrupted);
        }
        assert_eq!(io::Error::from(Interrupt::Deadline).kind(), io::ErrorKind::TimedOut);
        assert_eq!(Interrupt::of(&io::Error::from(io::ErrorKind::NotFound)), None);
    }
}
