//! Whose turn it is, and how that changes: on the executor's own thread with no atomic operation,
//! from other threads through a list.
//!
//! A waker is kept by whoever will wake, on any thread, and may outlive the executor. So what it
//! points to is never freed but used again, by the next executor: copying a waker costs nothing,
//! and one that comes late wakes another task for nothing, which futures allow.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::ptr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::list::{Entry, WakeList};
use super::tasks::{Tasks, Work};

/// The tasks of an executor, with what wakes them.
pub(super) struct Queue {
    tasks: UnsafeCell<Tasks>,
    list: &'static WakeList,
    /// What wakers point to, by the index of the task.
    entries: RefCell<Vec<&'static Entry>>,
}

/// The lists that no executor uses now, with their entries.
static FREE: Mutex<Vec<(&WakeList, Vec<&Entry>)>> = Mutex::new(Vec::new());

impl Queue {
    /// A queue whose wakes from other threads are announced by `notify`.
    pub(super) fn new(notify: Arc<dyn Fn() + Send + Sync>) -> Self {
        let used = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (list, entries) = used.unwrap_or_else(|| (Box::leak(Box::default()), Vec::new()));
        list.set_notify(Some(notify));
        Self { tasks: UnsafeCell::default(), list, entries: RefCell::new(entries) }
    }

    /// Calls `f` with the tasks.
    ///
    /// # Safety
    ///
    /// `f` only calls their methods, none of which calls code of others: a second `f` inside of it
    /// would have them too.
    // Not a `RefCell`: its flag is written four times on the way of each switch.
    #[inline]
    pub(super) unsafe fn with<T>(&self, f: impl FnOnce(&mut Tasks) -> T) -> T {
        // SAFETY: the queue is one thread's, and there is no other `f` as asked for here.
        f(unsafe { &mut *self.tasks.get() })
    }

    /// Queues new work, which `prepare` may give its waker to.
    pub(super) fn begin(&self, prepare: impl FnOnce(Rc<Waker>) -> Work) {
        // SAFETY: `waker` only makes one.
        let (index, waker) = unsafe { self.with(|tasks| tasks.reserve(|index| self.waker(index))) };
        let work = prepare(waker);
        // SAFETY: a method only.
        unsafe { self.with(|tasks| tasks.begin(index, work)) };
    }

    fn waker(&self, index: u32) -> Waker {
        let mut entries = self.entries.borrow_mut();
        while entries.len() <= index as usize {
            let entry = Entry::new(self.list, entries.len() as u32);
            entries.push(Box::leak(Box::new(entry)));
        }
        let entry: *const Entry = entries[index as usize];
        // SAFETY: the functions of the table get this pointer, to what lives for ever and is `Sync`.
        unsafe { Waker::from_raw(RawWaker::new(entry.cast(), &TABLE)) }
    }

    /// How many wait for their turn.
    pub(super) fn ready(&self) -> usize {
        // SAFETY: a method only.
        unsafe { self.with(|tasks| tasks.ready()) }
    }

    #[inline]
    fn wake(&self, index: u32) {
        // SAFETY: a method only.
        unsafe { self.with(|tasks| tasks.wake(index)) };
    }

    /// Whether nobody is to be run now.
    pub(super) fn is_quiet(&self) -> bool {
        self.ready() == 0 && self.list.is_empty()
    }

    /// Takes in the wakes from other threads.
    pub(super) fn take_in(&self) {
        if !self.list.is_empty() {
            self.list.take(|index| self.wake(index));
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.list.set_notify(None);
        self.list.take(|_| {});
        let entries = self.entries.take();
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push((self.list, entries));
    }
}

static TABLE: RawWakerVTable = RawWakerVTable::new(|entry| RawWaker::new(entry, &TABLE), wake, wake, |_| {});

fn wake(entry: *const ()) {
    // SAFETY: only wakers that `Queue::waker` made have this table, and their entries are leaked.
    let entry: &'static Entry = unsafe { &*entry.cast() };
    match CURRENT.get() {
        Some(queue) if ptr::eq(queue.list, entry.list()) => queue.wake(entry.index()),
        _ => entry.push(),
    }
}

thread_local! {
    /// The queue of the executor whose `run` is the innermost of this thread.
    static CURRENT: Cell<Option<&'static Queue>> = const { Cell::new(None) };
}

/// Makes a queue the thread's, until dropped.
pub(super) struct Current<'a> {
    before: Option<&'static Queue>,
    /// It lives that long.
    _queue: &'a Queue,
}

impl<'a> Current<'a> {
    pub(super) fn enter(queue: &'a Queue) -> Self {
        // SAFETY: only the lifetime changes. The reference is in `CURRENT` no longer than this
        // value lives, which borrows the queue; it is never forgotten, and whoever reads
        // `CURRENT` uses what it finds for one call below the frame that holds this value, or
        // on a stack that is resumed below it.
        let current: &'static Queue = unsafe { &*ptr::from_ref(queue) };
        Self { before: CURRENT.replace(Some(current)), _queue: queue }
    }
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}
