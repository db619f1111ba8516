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
use crate::loops;

/// Why a park failed.
pub(crate) enum ParkError {
    /// It could not begin.
    Register(io::Error),
    /// An exception ended it: a signal handler's, or one thrown into the stack.
    Raised(PyErr),
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
        register: impl FnOnce(Token) -> io::Result<bool>,
    ) -> Result<Option<Wake>, ParkError> {
        let stack = Current::current(py).map_err(ParkError::Raised)?;
        let runner = self.runner_other_than(py, &stack);
        let task = self.task(py).map(Bound::unbind);
        let mut done = None;
        let parked = match &runner {
            Some(_) => Parked::Stack(stack, task.as_ref().map(|task| task.clone_ref(py))),
            None => Parked::Runner(Rc::clone(done.insert(Rc::new(Cell::new(None))))),
        };
        let Some(token) = self.enlist(parked, deadline, register)? else { return Ok(None) };
        match &task {
            Some(task) => task.get().set_parked(py, Some(token)),
            None => self.taskless.borrow_mut().push(token),
        }
        let result = match (runner, done) {
            (Some(runner), _) => self.leave(py, &runner),
            (None, done) => self.run(py, &done.unwrap_or_default()),
        };
        match &task {
            Some(task) => task.get().set_parked(py, None),
            None => self.taskless.borrow_mut().retain(|other| *other != token),
        }
        result.map(Some).map_err(|error| {
            // Not woken by the scheduler, so it still knows this park, and maybe not our task.
            drop(self.scheduler.borrow_mut().take(token));
            self.set_task(task);
            ParkError::Raised(error)
        })
    }

    /// Tells the scheduler of a park, and `register` of its token; undone unless that has
    /// something to wait for.
    fn enlist(
        &self,
        parked: Parked,
        deadline: Option<Instant>,
        register: impl FnOnce(Token) -> io::Result<bool>,
    ) -> Result<Option<Token>, ParkError> {
        let token = self.scheduler.borrow_mut().park(parked, deadline);
        let registered = register(token);
        if !matches!(registered, Ok(true)) {
            drop(self.scheduler.borrow_mut().take(token));
        }
        registered.map(|waits| waits.then_some(token)).map_err(ParkError::Register)
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
    pub(crate) fn step_aside(&self, py: Python<'_>, stack: Stack, runner: &Stack) -> PyResult<()> {
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
    pub(crate) fn held(&self, py: Python<'_>) -> PyResult<Option<Depth>> {
        if self.runner.borrow().is_none() {
            return Ok(None);
        }
        let depth = Depth::now(py)?;
        if !depth.is_below(self.depth.get()) {
            return Ok(None);
        }
        let stack = Current::current(py)?;
        Ok(self.runner_other_than(py, &stack).map(|_| depth))
    }

    /// Like [`Hub::park`], but nobody else runs until the wait has ended: for a stack that is
    /// held ([`Hub::held`]). What becomes runnable meanwhile has its turn later.
    pub(crate) fn hold(
        &'static self,
        py: Python<'_>,
        deadline: Option<Instant>,
        register: impl FnOnce(Token) -> io::Result<bool>,
    ) -> Result<Option<Wake>, ParkError> {
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
                break Err(ParkError::Raised(error));
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
    fn leave(&self, py: Python<'_>, runner: &Stack) -> PyResult<Wake> {
        let hidden = loops::hide(py)?;
        let switched = Current::switch(py, runner).map(|()| self.wake.get());
        loops::restore(py, hidden)?;
        switched
    }
}
