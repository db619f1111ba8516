//! How a stack waits: it leaves its thread to the others, or, where it must not, holds it.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use balrog_sched::{Token, Wake};
use pyo3::prelude::*;

use super::{Hub, Parked};
use crate::engine::{Current, Engine, Stack};
use crate::foreign::Depth;
use crate::interrupt::WaitError;
use crate::loops;
use crate::task::Task;

/// A stack that is parked, as it knows itself.
///
/// Its frames are kept as long, so beginning and end of a park have functions of their own.
struct Park {
    token: Token,
    task: Option<Py<Task>>,
    runner: Runner,
}

/// Who runs the others while a stack is parked.
enum Runner {
    /// Another stack.
    Other(Stack),
    /// The parked stack itself, until this is set.
    Own(Rc<Cell<Option<Wake>>>),
}

impl Hub {
    /// Parks the running stack, after `register` told somebody its token, until it is woken.
    /// `None`: `register` said that there is nothing to wait for.
    ///
    /// # Errors
    ///
    /// What `register` says (nothing was parked then), or an exception thrown into the stack.
    pub(crate) fn park(
        &'static self,
        py: Python<'_>,
        deadline: Option<Instant>,
        register: &mut dyn FnMut(Token) -> io::Result<bool>,
    ) -> Result<Option<Wake>, WaitError> {
        let Some(park) = self.begin_park(py, deadline, register)? else { return Ok(None) };
        let result = match &park.runner {
            Runner::Other(runner) => self.leave(py, runner),
            Runner::Own(done) => self.run(py, done),
        };
        self.end_park(py, park, result)
    }

    #[inline(never)]
    fn begin_park(
        &self,
        py: Python<'_>,
        deadline: Option<Instant>,
        register: &mut dyn FnMut(Token) -> io::Result<bool>,
    ) -> Result<Option<Park>, WaitError> {
        let stack = Current::current(py).map_err(WaitError::raised)?;
        let task = self.task(py).map(Bound::unbind);
        let (parked, runner) = match self.runner_other_than(py, &stack) {
            Some(runner) => {
                let parked = Parked::Stack(stack, task.as_ref().map(|task| task.clone_ref(py)));
                (parked, Runner::Other(runner))
            }
            None => {
                let done = Rc::new(Cell::new(None));
                (Parked::Runner(Rc::clone(&done)), Runner::Own(done))
            }
        };
        let Some(token) = self.enlist(parked, deadline, register)? else { return Ok(None) };
        match &task {
            Some(task) => task.get().set_parked(py, Some(token)),
            None => self.taskless.borrow_mut().push(token),
        }
        Ok(Some(Park { token, task, runner }))
    }

    #[inline(never)]
    fn end_park(
        &self,
        py: Python<'_>,
        park: Park,
        result: Result<Wake, WaitError>,
    ) -> Result<Option<Wake>, WaitError> {
        match &park.task {
            Some(task) => task.get().set_parked(py, None),
            None => self.taskless.borrow_mut().retain(|other| *other != park.token),
        }
        if result.is_err() {
            // Not woken by the scheduler, so it still knows this park, and maybe not our task.
            drop(self.scheduler.borrow_mut().take(park.token));
            self.set_task(park.task);
        }
        result.map(Some)
    }

    /// Tells the scheduler of a park, and `register` of its token; undone unless that has
    /// something to wait for.
    fn enlist(
        &self,
        parked: Parked,
        deadline: Option<Instant>,
        register: &mut dyn FnMut(Token) -> io::Result<bool>,
    ) -> Result<Option<Token>, WaitError> {
        let token = self.scheduler.borrow_mut().park(parked, deadline);
        let registered = register(token);
        if !matches!(registered, Ok(true)) {
            drop(self.scheduler.borrow_mut().take(token));
        }
        registered.map(|waits| waits.then_some(token)).map_err(WaitError::Io)
    }

    /// Whether the running task, which lets others run, is itself the next in line. It goes on
    /// with no switch then, but not for longer than a turn: the hub has to poll, too.
    pub(crate) fn is_next_anyway(&self) -> bool {
        let turn = self.turn.get();
        let next = turn > 1 && self.task.borrow().is_some() && !self.scheduler.borrow().has_ready();
        if next {
            self.turn.set(turn - 1);
        }
        next
    }

    /// The running stack and the one that runs others meanwhile, if [`Hub::step_aside`] will do.
    pub(crate) fn aside(&self, py: Python<'_>) -> PyResult<Option<(Stack, Stack)>> {
        let stack = Current::current(py)?;
        let Some(runner) = self.runner_other_than(py, &stack) else { return Ok(None) };
        let is_held = Depth::now(py)?.is_below(self.depth.get());
        Ok((!is_held).then_some((stack, runner)))
    }

    /// Lets whoever is runnable run once. A park that is over as it begins, so it has no token.
    pub(crate) fn step_aside(&self, py: Python<'_>, stack: Stack, runner: &Stack) -> Result<(), WaitError> {
        let task = self.task(py).map(Bound::unbind);
        let parked = Parked::Stack(stack, task.as_ref().map(|task| task.clone_ref(py)));
        self.scheduler.borrow_mut().requeue(parked);
        // Something was thrown into the stack: the hub may not know that this task runs.
        self.leave(py, runner).map(drop).inspect_err(|_| drop(self.set_task(task)))
    }

    /// Makes parked code outside of tasks look at what changed.
    pub(crate) fn interrupt_taskless(&self) {
        for token in self.taskless.borrow().iter() {
            self.scheduler.borrow_mut().wake(*token, Wake::Cancelled);
        }
    }

    /// Where the running stack is, if it must not be switched away from: inside a callback of C
    /// code or in the middle of an import that began on it.
    #[inline(never)]
    pub(crate) fn held(&self, py: Python<'_>) -> Result<Option<Depth>, WaitError> {
        if self.runner.borrow().is_none() {
            return Ok(None);
        }
        let depth = Depth::now(py).map_err(WaitError::raised)?;
        if !depth.is_below(self.depth.get()) {
            return Ok(None);
        }
        let stack = Current::current(py).map_err(WaitError::raised)?;
        Ok(self.runner_other_than(py, &stack).map(|_| depth))
    }

    /// Like [`Hub::park`], but nobody else runs until the wait has ended: for a stack that is
    /// held ([`Hub::held`]). What becomes runnable meanwhile has its turn later.
    #[inline(never)]
    pub(crate) fn hold(
        &'static self,
        py: Python<'_>,
        deadline: Option<Instant>,
        register: &mut dyn FnMut(Token) -> io::Result<bool>,
    ) -> Result<Option<Wake>, WaitError> {
        let mark = Rc::new(Cell::new(None));
        let parked = Parked::Runner(Rc::clone(&mark));
        let Some(token) = self.enlist(parked, deadline, register)? else { return Ok(None) };
        let task = self.task(py);
        if let Some(task) = &task {
            task.get().set_parked(py, Some(token));
        }
        let is_mine = |parked: &Parked| matches!(parked, Parked::Runner(other) if Rc::ptr_eq(other, &mark));
        let result = loop {
            let woken = self.scheduler.borrow_mut().take_ready(is_mine);
            if let Some(wake) = woken {
                break Ok(Some(wake));
            }
            if let Err(error) = self.poll(py, true) {
                drop(self.scheduler.borrow_mut().take(token));
                break Err(WaitError::raised(error));
            }
        };
        if let Some(task) = &task {
            task.get().set_parked(py, None);
        }
        result
    }

    /// The stack to switch to for a wait of `stack`; none if that has to run the loop itself.
    fn runner_other_than(&self, py: Python<'_>, stack: &Stack) -> Option<Stack> {
        let runner = self.runner.borrow();
        runner
            .as_ref()
            .filter(|runner| !Current::same(runner, stack))
            .map(|runner| Current::clone(py, runner))
    }

    /// Leaves a task's stack for the runner's until it is woken. Its running loop stays with it.
    fn leave(&self, py: Python<'_>, runner: &Stack) -> Result<Wake, WaitError> {
        let hidden = loops::hide(py).map_err(WaitError::raised)?;
        let switched = Current::switch(py, runner).map_err(WaitError::raised);
        if hidden.is_some() {
            loops::restore(py, hidden).map_err(WaitError::raised)?;
        }
        switched.map(|()| self.wake.get())
    }
}
