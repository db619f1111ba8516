//! The tasks of an executor by their indices, and whose turn it is.

use std::rc::Rc;
use std::task::Waker;

use crate::task::{TaskStack, Turn};
use crate::{LocalFuture, Task};

/// A slot and its waker are used again for the next task, so that a new task costs no waker. A
/// late wake for the one before is a wake too many for the new one, which futures allow.
///
/// Who is ready is a list through the slots, first come, first served: no task is in it twice.
#[derive(Default)]
pub(super) struct Tasks {
    slots: Vec<Slot>,
    /// By the same indices.
    wakers: Vec<Rc<Waker>>,
    /// Slots that are free and not ready; used last, taken first.
    free: Vec<u32>,
    first: u32,
    last: u32,
    ready: usize,
}

struct Slot {
    work: Work,
    /// The one that is ready after it.
    next: u32,
    /// Whether it is ready. It may have ended since.
    ready: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Waits,
    Runs,
    /// It runs, and is to end when it comes back.
    Unwanted,
}

/// What a slot holds.
pub(super) enum Work {
    Nothing,
    Task(Task<()>),
    Future(LocalFuture<()>),
}

impl Tasks {
    /// How many there are.
    pub(super) fn live(&self) -> usize {
        self.slots.iter().filter(|slot| slot.state != State::Free).count()
    }

    /// How many of them do not run.
    pub(super) fn waiting(&self) -> usize {
        self.slots.iter().filter(|slot| slot.state == State::Waits).count()
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// How many wait for their turn.
    pub(super) fn ready(&self) -> usize {
        self.ready
    }

    /// Room for new work, with what wakes it; `waker` makes one for an index.
    #[inline]
    pub(super) fn reserve(&mut self, waker: impl FnOnce(u32) -> Waker) -> (u32, Rc<Waker>) {
        let index = self.free.pop().unwrap_or_else(|| {
            // 4 billion tasks at once are beyond any machine.
            let index = self.slots.len() as u32;
            self.wakers.push(Rc::new(waker(index)));
            self.slots.push(Slot { work: Work::Nothing, next: 0, ready: false, state: State::Free });
            index
        });
        (index, Rc::clone(&self.wakers[index as usize]))
    }

    /// Makes work ready that a slot was reserved for.
    #[inline]
    pub(super) fn begin(&mut self, index: u32, work: Work) {
        let slot = &mut self.slots[index as usize];
        (slot.work, slot.state) = (work, State::Waits);
        self.push(index);
    }

    /// Gives it a turn behind everybody who is ready.
    #[inline]
    pub(super) fn wake(&mut self, index: u32) {
        if let Some(slot) = self.slots.get(index as usize)
            && !slot.ready
            && slot.state != State::Free
        {
            self.push(index);
        }
    }

    #[inline]
    fn push(&mut self, index: u32) {
        self.slots[index as usize].ready = true;
        if self.ready == 0 {
            self.first = index;
        } else {
            self.slots[self.last as usize].next = index;
        }
        self.last = index;
        self.ready += 1;
    }

    /// The next one to run, until it [comes back](Tasks::come_back): a task stays in its slot
    /// meanwhile, a future (`None`) is to be [taken](Tasks::take).
    #[inline]
    pub(super) fn next(&mut self) -> Option<(u32, Option<TaskStack<()>>)> {
        while self.ready > 0 {
            let index = self.first;
            let slot = &mut self.slots[index as usize];
            slot.ready = false;
            self.first = slot.next;
            self.ready -= 1;
            match slot.state {
                State::Waits => slot.state = State::Runs,
                // It ended after it was woken.
                State::Free => {
                    self.free.push(index);
                    continue;
                }
                // One that runs an executor inside of it, and was woken meanwhile.
                State::Runs | State::Unwanted => continue,
            }
            return Some((index, if let Work::Task(task) = &slot.work { Some(task.stack()) } else { None }));
        }
        None
    }

    /// Takes a future out of its slot, to run it, with its waker.
    pub(super) fn take(&mut self, index: u32) -> (Work, Rc<Waker>) {
        let work = std::mem::replace(&mut self.slots[index as usize].work, Work::Nothing);
        (work, Rc::clone(&self.wakers[index as usize]))
    }

    /// Puts back what was [taken](Tasks::take).
    pub(super) fn put_back(&mut self, index: u32, work: Work) {
        self.slots[index as usize].work = work;
    }

    /// What ran waits again. `true`: it is over, and to be [ended](Tasks::end).
    #[inline]
    pub(super) fn come_back(&mut self, index: u32, turn: Turn) -> bool {
        let slot = &mut self.slots[index as usize];
        let over = turn == Turn::Ended || slot.state == State::Unwanted;
        slot.state = State::Waits;
        if turn == Turn::Yielded && !slot.ready {
            self.push(index);
        }
        over
    }

    /// The slot's work is over, as soon as it does not run any more. Returns it, to be dropped when
    /// nothing is borrowed.
    pub(super) fn end(&mut self, index: u32) -> Work {
        let slot = &mut self.slots[index as usize];
        match slot.state {
            State::Free => {}
            State::Runs | State::Unwanted => slot.state = State::Unwanted,
            State::Waits => {
                slot.state = State::Free;
                if !slot.ready {
                    self.free.push(index);
                }
                return std::mem::replace(&mut slot.work, Work::Nothing);
            }
        }
        Work::Nothing
    }
}
