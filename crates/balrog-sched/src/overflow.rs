//! A task that goes deeper than its stack ends the process, and says which one it was.
//!
//! Without this, the guard page gives a bare SIGSEGV: the standard library knows the guards of
//! threads only.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Once;

use crate::stack;

/// The handler needs a stack of its own: the one that overflowed is full.
const SIGNAL_STACK: usize = 64 * 1024;

thread_local! {
    static READY: Cell<bool> = const { Cell::new(false) };
}

/// What was installed before, to hand other faults to.
static mut PREVIOUS: [MaybeUninit<libc::sigaction>; 2] = [const { MaybeUninit::uninit() }; 2];
const SIGNALS: [libc::c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// Prepares the process, once, and the calling thread.
pub(crate) fn install() {
    if READY.replace(true) {
        return;
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (index, signal) in SIGNALS.into_iter().enumerate() {
            // SAFETY: plain system calls with structures of ours; `PREVIOUS` is written once,
            // before the handler that reads it can run.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = handler as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                let previous = (&raw mut PREVIOUS).cast::<libc::sigaction>().add(index);
                libc::sigaction(signal, &raw const action, previous);
            }
        }
    });
    // SAFETY: asks, and then gives the thread a stack that is never freed.
    unsafe {
        let mut now: libc::stack_t = std::mem::zeroed();
        // Threads of the standard library have one; others (an interpreter's) may not.
        if libc::sigaltstack(ptr::null(), &raw mut now) == 0 && now.ss_flags & libc::SS_DISABLE != 0 {
            let memory = Box::leak(vec![0_u8; SIGNAL_STACK].into_boxed_slice());
            let new = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: SIGNAL_STACK };
            libc::sigaltstack(&raw const new, ptr::null_mut());
        }
    }
}

/// Runs on the signal stack. Calls nothing but what a signal handler may.
extern "C" fn handler(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid `siginfo_t` for these signals.
    let address = unsafe { (*info).si_addr() } as usize;
    if let Some(size) = stack::overflowed(address) {
        // Of the task that ran here when the fault came: reading it is two loads and a call.
        let name = crate::wait::current().and_then(crate::Suspender::name).unwrap_or("without a name");
        let mut digits = [0; 20];
        for part in [
            b"\nbalrog: the task '",
            name.as_bytes(),
            b"' has overflowed its stack of ",
            decimal(size / 1024, &mut digits),
            b" KiB. Give it a larger one (Builder::stack_size), or look for an endless recursion.\n",
        ] {
            // SAFETY: bytes of ours to the standard error; nothing can be done if that fails.
            unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
        }
        // SAFETY: the stack is full and cannot be unwound.
        unsafe { libc::abort() };
    }
    let index = usize::from(signal == SIGNALS[1]);
    // SAFETY: written before this handler was installed, for the only signals it is installed
    // for. Either kind of handler is called as its kind, on the same arguments.
    unsafe {
        let previous = (&raw const PREVIOUS).cast::<libc::sigaction>().add(index);
        match (*previous).sa_sigaction {
            libc::SIG_DFL | libc::SIG_IGN => {
                // The fault comes again when we return, and ends the process as it would have.
                libc::sigaction(signal, previous, ptr::null_mut());
            }
            next if (*previous).sa_flags & libc::SA_SIGINFO != 0 => {
                type Action = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
                std::mem::transmute::<usize, Action>(next)(signal, info, context);
            }
            next => std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(next)(signal),
        }
    }
}

fn decimal(mut number: usize, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_without_the_library() {
        assert_eq!(decimal(0, &mut [0; 20]), b"0");
        assert_eq!(decimal(256, &mut [0; 20]), b"256");
        assert_eq!(decimal(usize::MAX, &mut [0; 20]), usize::MAX.to_string().as_bytes());
    }
}
