//! Wakes from other threads: a list that anybody pushes to and the executor takes as a whole.

use std::ptr;
use std::sync::{Arc, PoisonError};

#[cfg(all(test, loom))]
use loom::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicPtr, Ordering},
};
#[cfg(not(all(test, loom)))]
use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicPtr, Ordering},
};

/// How an executor learns that its list is not empty any more.
pub(super) type Notify = Arc<dyn Fn() + Send + Sync>;

/// Whom other threads woke. Each entry is in it once at most, so its length is bounded.
#[derive(Default)]
pub(super) struct WakeList {
    /// The one that was pushed last.
    head: AtomicPtr<Entry>,
    /// `None` between two executors.
    notify: Mutex<Option<Notify>>,
}

/// What wakers of one task point to.
pub(super) struct Entry {
    list: &'static WakeList,
    index: u32,
    /// Whether it is in the list.
    queued: AtomicBool,
    next: AtomicPtr<Self>,
}

impl WakeList {
    pub(super) fn set_notify(&self, notify: Option<Notify>) {
        let before = std::mem::replace(&mut *self.lock(), notify);
        drop(before);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Empties the list: calls `wake` with each index, in the order of pushing.
    pub(super) fn take(&self, mut wake: impl FnMut(u32)) {
        let mut newest = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        let mut oldest = ptr::null_mut();
        // SAFETY: entries are never freed, and those of the list are ours until they are marked
        // as out of it below.
        while let Some(entry) = unsafe { newest.as_ref() } {
            let next = entry.next.load(Ordering::Relaxed);
            entry.next.store(oldest, Ordering::Relaxed);
            oldest = newest;
            newest = next;
        }
        // SAFETY: as above.
        while let Some(entry) = unsafe { oldest.as_ref() } {
            oldest = entry.next.load(Ordering::Relaxed);
            // Not a mere store: whoever found it queued has something to show to its task.
            entry.queued.swap(false, Ordering::AcqRel);
            wake(entry.index);
        }
    }

    fn lock(&self) -> impl std::ops::DerefMut<Target = Option<Notify>> + '_ {
        // Nothing runs under the lock.
        self.notify.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    pub(super) fn new(list: &'static WakeList, index: u32) -> Self {
        Self { list, index, queued: AtomicBool::new(false), next: AtomicPtr::default() }
    }

    pub(super) const fn list(&self) -> &'static WakeList {
        self.list
    }

    pub(super) const fn index(&self) -> u32 {
        self.index
    }

    /// Wakes its task from another thread.
    pub(super) fn push(&'static self) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = ptr::from_ref(self).cast_mut();
        let mut head = self.list.head.load(Ordering::Relaxed);
        loop {
            self.next.store(head, Ordering::Relaxed);
            match self.list.head.compare_exchange_weak(head, this, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        // Who pushed the first one announces them all.
        if head.is_null() {
            let notify = self.list.lock().clone();
            if let Some(notify) = notify {
                notify();
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn wakes_come_once_each_in_their_order_and_are_announced_once() {
        let list: &'static WakeList = Box::leak(Box::default());
        let entries: Vec<&'static Entry> =
            (0..3).map(|index| &*Box::leak(Box::new(Entry::new(list, index)))).collect();
        let announced = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&announced);
        list.set_notify(Some(Arc::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        })));
        for round in 1..3 {
            for index in [2, 0, 2, 1, 0] {
                entries[index].push();
            }
            assert!(!list.is_empty());
            let mut woken = Vec::new();
            list.take(|index| woken.push(index));
            assert_eq!(woken, [2, 0, 1]);
            assert!(list.is_empty());
            assert_eq!(announced.load(Ordering::SeqCst), round);
        }
    }
}

/// Every order in which threads may push and the executor take.
#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    fn list(entries: u32) -> (&'static WakeList, Vec<&'static Entry>) {
        let list: &'static WakeList = Box::leak(Box::default());
        (list, (0..entries).map(|index| &*Box::leak(Box::new(Entry::new(list, index)))).collect())
    }

    #[test]
    fn every_wake_comes_once_and_every_batch_is_announced_once() {
        loom::model(|| {
            let (list, entries) = list(2);
            let announced = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&announced);
            list.set_notify(Some(Arc::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
            })));
            let shown: Arc<[_; 2]> = Arc::new(std::array::from_fn(|_| AtomicUsize::new(0)));
            let threads: Vec<_> = entries
                .into_iter()
                .zip(0..)
                .map(|(entry, index): (_, usize)| {
                    let shown = Arc::clone(&shown);
                    thread::spawn(move || {
                        shown[index].store(1, Ordering::Relaxed);
                        entry.push();
                    })
                })
                .collect();
            let (mut woken, mut batches) = ([0; 2], 0);
            let mut take = || {
                let before = woken;
                list.take(|index| {
                    woken[index as usize] += 1;
                    // Who woke it has done so behind what it has to show.
                    assert_eq!(shown[index as usize].load(Ordering::Relaxed), 1);
                });
                batches += usize::from(woken != before);
            };
            take();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            take();
            assert_eq!(woken, [1; 2]);
            assert_eq!(announced.load(Ordering::Relaxed), batches);
        });
    }

    #[test]
    fn who_finds_it_queued_is_seen_too() {
        loom::model(|| {
            let (list, entries) = list(1);
            let entry = entries[0];
            let shown = Arc::new(AtomicUsize::new(0));
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let shown = Arc::clone(&shown);
                    thread::spawn(move || {
                        shown.fetch_add(1, Ordering::Relaxed);
                        entry.push();
                    })
                })
                .collect();
            let mut seen = 0;
            let mut take = || list.take(|_| seen = shown.load(Ordering::Relaxed));
            take();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            take();
            assert_eq!(seen, 2);
        });
    }
}
