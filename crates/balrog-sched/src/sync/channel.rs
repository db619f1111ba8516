use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::{error, fmt};

use super::Semaphore;
use super::waiters::lock;
use crate::Interrupt;

/// A queue between tasks or threads that holds at most `bound` values (0 counts as 1). Who
/// sends to a full one waits. Both ends can be cloned.
pub fn channel<T>(bound: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        values: Mutex::default(),
        room: Semaphore::new(bound.max(1)),
        filled: Semaphore::new(0),
        senders: AtomicUsize::new(1),
        receivers: AtomicUsize::new(1),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

#[derive(Debug)]
struct Shared<T> {
    values: Mutex<VecDeque<T>>,
    /// A permit for each free place.
    room: Semaphore,
    /// A permit for each value.
    filled: Semaphore,
    senders: AtomicUsize,
    receivers: AtomicUsize,
}

/// The end of a [`channel`] that values go into.
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// Sends `value`, once there is room.
    ///
    /// # Errors
    ///
    /// [`SendError`], with the value: nobody receives any more, or the wait was interrupted.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        if let Err(interrupt) = self.0.room.take() {
            return Err(SendError { value, interrupt: Some(interrupt) });
        }
        {
            let mut values = lock(&self.0.values);
            if self.0.receivers.load(Ordering::Acquire) == 0 {
                drop(values);
                return Err(SendError { value, interrupt: None });
            }
            values.push_back(value);
        }
        self.0.filled.release(1);
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.filled.close();
        }
    }
}

/// The end of a [`channel`] that values come out of.
#[derive(Debug)]
pub struct Receiver<T>(Arc<Shared<T>>);

impl<T> Receiver<T> {
    /// The next value, once there is one.
    ///
    /// # Errors
    ///
    /// [`RecvError`]: all is received and nobody sends any more, or the wait was interrupted.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.0.filled.take().map_err(RecvError::Interrupted)?;
        // Let through without a permit, there is no value: the senders are gone.
        let value = lock(&self.0.values).pop_front().ok_or(RecvError::Closed)?;
        self.0.room.release(1);
        Ok(value)
    }

    /// The next value, if there is one and nobody waits for it.
    pub fn try_recv(&self) -> Option<T> {
        if !self.0.filled.try_take() {
            return None;
        }
        let value = lock(&self.0.values).pop_front()?;
        self.0.room.release(1);
        Some(value)
    }

    /// The values until nobody sends any more, or until a wait is interrupted.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.recv().ok())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.0.receivers.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let rest = {
            let mut values = lock(&self.0.values);
            if self.0.receivers.fetch_sub(1, Ordering::AcqRel) != 1 {
                return;
            }
            std::mem::take(&mut *values)
        };
        // Nobody will receive them; dropping them may run any code.
        drop(rest);
        self.0.room.close();
    }
}

/// A value that was not sent.
pub struct SendError<T> {
    /// The value.
    pub value: T,
    /// What ended the wait; `None` if nobody receives any more.
    pub interrupt: Option<Interrupt>,
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").field("interrupt", &self.interrupt).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.interrupt {
            Some(interrupt) => write!(f, "nothing was sent: {interrupt}"),
            None => f.write_str("nothing was sent: nobody receives any more"),
        }
    }
}

impl<T> error::Error for SendError<T> {}

/// Why no value was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecvError {
    /// Everything is received, and nobody sends any more.
    Closed,
    /// The wait was interrupted.
    Interrupted(Interrupt),
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("nobody sends any more"),
            Self::Interrupted(interrupt) => interrupt.fmt(f),
        }
    }
}

impl error::Error for RecvError {}
