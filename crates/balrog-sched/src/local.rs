//! Values of one task, as `thread_local!` has those of one thread.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use crate::wait::with_current;

/// A value that every task has its own of, made at its first use. Code outside of tasks has
/// one for each thread.
///
/// ```
/// use balrog_sched::TaskLocal;
///
/// static DEPTH: TaskLocal<std::cell::Cell<u32>> = TaskLocal::new(|| std::cell::Cell::new(0));
/// DEPTH.with(|depth| depth.set(depth.get() + 1));
/// assert_eq!(DEPTH.with(std::cell::Cell::get), 1);
/// ```
#[derive(Debug)]
pub struct TaskLocal<T: 'static> {
    init: fn() -> T,
}

impl<T: 'static> TaskLocal<T> {
    /// A value that begins as `init()`.
    pub const fn new(init: fn() -> T) -> Self {
        Self { init }
    }

    /// Calls `f` with the current task's value. `self` has to be a `static`: it is known by its
    /// address.
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        let key = std::ptr::from_ref(self) as usize;
        let value = with_current(|here| here.locals().get(key)).unwrap_or_else(|| {
            // Outside of any borrow: `init` may use other locals, and wait.
            let value: Rc<dyn Any> = Rc::new((self.init)());
            with_current(|here| here.locals().insert(key, Rc::clone(&value)));
            value
        });
        // Statics have addresses of their own, so what lies under this one's is a `T`.
        value.downcast_ref().map(f).expect("a task-local of another type")
    }
}

/// The [`TaskLocal`]s of one task.
#[derive(Default)]
pub struct Locals(RefCell<Vec<(usize, Rc<dyn Any>)>>);

impl Locals {
    fn get(&self, key: usize) -> Option<Rc<dyn Any>> {
        self.0.borrow().iter().find(|(own, _)| *own == key).map(|(_, value)| Rc::clone(value))
    }

    fn insert(&self, key: usize, value: Rc<dyn Any>) {
        self.0.borrow_mut().push((key, value));
    }
}

impl std::fmt::Debug for Locals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Locals").field(&self.0.borrow().len()).finish()
    }
}
