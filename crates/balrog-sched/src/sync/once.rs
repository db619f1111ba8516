use std::sync::OnceLock;

use super::Mutex;
use crate::Interrupt;

/// A value that is made once, by code that may wait; others wait for it meanwhile.
#[derive(Debug, Default)]
pub struct Once<T> {
    value: OnceLock<T>,
    making: Mutex<()>,
}

impl<T> Once<T> {
    /// No value yet.
    pub const fn new() -> Self {
        Self { value: OnceLock::new(), making: Mutex::new(()) }
    }

    /// The value, if it is there.
    pub fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// The value, made by `f` if it is not there. If `f` fails, the next one who asks tries.
    ///
    /// # Errors
    ///
    /// That of `f`, or of the wait for another who makes it.
    pub fn get_or_try_init<E: From<Interrupt>>(&self, f: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        if let Some(value) = self.value.get() {
            return Ok(value);
        }
        let _making = self.making.lock()?;
        if let Some(value) = self.value.get() {
            return Ok(value);
        }
        let value = f()?;
        Ok(self.value.get_or_init(|| value))
    }
}
