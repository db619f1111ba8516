//! Stacks for tasks: pooled, guarded, cut from large mappings.
//!
//! A mapping for each stack ends at about 32,000 of them: a guard page splits it in two, and
//! the kernel allows 65,530 mappings (`vm.max_map_count`). So stacks are cut from *slabs*, and
//! their guards are installed with `MADV_GUARD_INSTALL` (Linux 6.13), which splits nothing; on
//! older kernels `mprotect(2)` does it, at the old price.
//!
//! ```text
//!   slab   | guard | stack 0 | guard | stack 1 | guard | stack 2 | ...   (grows downwards)
//!                  ^ limit + a page  ^ base of stack 0
//! ```

use std::cell::RefCell;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use corosensei::stack::{Stack, StackPointer};

/// How much of a stack a task may use where nothing else was asked for, in bytes. Only what a
/// task has touched costs memory.
pub const DEFAULT_STACK_SIZE: usize = 256 * 1024;

/// The smallest stack, in bytes.
pub const MIN_STACK_SIZE: usize = 16 * 1024;

/// The guard at a stack's end, in bytes; also the page size that sizes are rounded to.
const PAGE: usize = 4096;
/// The first slab of a size holds so many stacks; each further one twice as many.
const FIRST_SLAB: usize = 16;
/// No slab is larger, in bytes of address space.
const LARGEST_SLAB: usize = 1 << 30;
/// So many free stacks keep what they have touched, about 2 MiB; more give it back to the system.
const WARM: usize = 256;

/// What is reserved on a stack is aligned to, in bytes: a cache line, and more than a stack wants.
const RESERVED_ALIGN: usize = 64;

/// `MADV_GUARD_INSTALL`, which libc does not name everywhere yet.
const MADV_GUARD_INSTALL: libc::c_int = 102;

/// A stack of this thread's pool; goes back there when dropped.
#[derive(Debug)]
pub(crate) struct PooledStack {
    /// The highest address of its slot, exclusive.
    top: NonZeroUsize,
    /// Where the stack begins: below what was [reserved](PooledStack::reserve).
    base: NonZeroUsize,
    /// With its guard, in bytes.
    slot: usize,
}

impl PooledStack {
    /// Takes room for a value off the stack, where it begins. It is not initialised, and lasts
    /// as long as the stack: a page that the stack touches anyway holds the value too.
    pub(crate) fn reserve<V>(&mut self) -> NonNull<V> {
        const { assert!(size_of::<V>() < PAGE && align_of::<V>() <= RESERVED_ALIGN) };
        let size = size_of::<V>().next_multiple_of(RESERVED_ALIGN);
        // No stack is smaller than `MIN_STACK_SIZE`, so this stays in its highest page.
        self.base = NonZeroUsize::new(self.base.get() - size).unwrap_or(self.base);
        // Not zero, as it is not.
        NonNull::new(self.base.get() as *mut V).unwrap_or(NonNull::dangling())
    }
}

// SAFETY: `base` and `limit` delimit a slot of a slab that stays mapped while `PooledStack`
// exists (`Pool::drop`); its lowest page is a guard (`Pool::take`); both are multiples of a page.
unsafe impl Stack for PooledStack {
    #[inline]
    fn base(&self) -> StackPointer {
        self.base
    }

    #[inline]
    fn limit(&self) -> StackPointer {
        // The slab begins above address zero, and the slot lies inside of it.
        NonZeroUsize::new(self.top.get() - self.slot).unwrap_or(NonZeroUsize::MIN)
    }
}

impl Drop for PooledStack {
    fn drop(&mut self) {
        // At the thread's end the pool may be gone already: it has left the slab mapped then.
        let _ = POOLS.try_with(|pools| {
            if let Ok(mut pools) = pools.try_borrow_mut() {
                pools.give_back(self.top, self.slot);
            }
        });
    }
}

/// Takes a stack of at least `size` usable bytes out of this thread's pool.
///
/// # Errors
///
/// When the system has no more memory or mappings for one.
pub(crate) fn take(size: usize) -> io::Result<PooledStack> {
    let slot = slot_size(size);
    POOLS.with(|pools| pools.borrow_mut().of(slot).take()).map(|top| PooledStack { top, base: top, slot })
}

/// The stack whose guard holds `address`, as its usable size. For the fault handler: takes no
/// lock and allocates nothing.
pub(crate) fn overflowed(address: usize) -> Option<usize> {
    let mut record = SLABS.load(Ordering::Acquire);
    // SAFETY: records are leaked, so each pointer of the list is valid for ever.
    while let Some(slab) = unsafe { record.as_ref() } {
        let start = slab.start.load(Ordering::Acquire);
        if start != 0 && (start..start + slab.len).contains(&address) {
            return ((address - start) % slab.slot < PAGE).then_some(slab.slot - PAGE);
        }
        record = slab.next;
    }
    None
}

fn slot_size(size: usize) -> usize {
    size.max(MIN_STACK_SIZE).saturating_add(PAGE - 1) / PAGE * PAGE + PAGE
}

thread_local! {
    static POOLS: RefCell<Pools> = const { RefCell::new(Pools { pools: Vec::new() }) };
}

/// All slabs of all threads, newest first.
static SLABS: AtomicPtr<Record> = AtomicPtr::new(ptr::null_mut());

/// A slab, for the fault handler.
struct Record {
    /// Zero once it is unmapped.
    start: AtomicUsize,
    len: usize,
    slot: usize,
    next: *mut Self,
}

impl Record {
    fn publish(start: usize, len: usize, slot: usize) -> &'static Self {
        let record =
            Box::leak(Box::new(Self { start: AtomicUsize::new(start), len, slot, next: ptr::null_mut() }));
        let mut head = SLABS.load(Ordering::Acquire);
        loop {
            record.next = head;
            match SLABS.compare_exchange_weak(head, record, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return record,
                Err(other) => head = other,
            }
        }
    }
}

/// A pool for each size in use; there are few.
struct Pools {
    pools: Vec<Pool>,
}

impl Pools {
    fn of(&mut self, slot: usize) -> &mut Pool {
        let index = self.pools.iter().position(|pool| pool.slot == slot).unwrap_or_else(|| {
            self.pools.push(Pool { slot, free: Vec::new(), slabs: Vec::new(), fresh: 0, out: 0 });
            self.pools.len() - 1
        });
        &mut self.pools[index]
    }

    fn give_back(&mut self, base: NonZeroUsize, slot: usize) {
        self.of(slot).give_back(base);
    }
}

struct Pool {
    slot: usize,
    /// Used last, taken first: its pages are in the cache.
    free: Vec<NonZeroUsize>,
    slabs: Vec<&'static Record>,
    /// How many stacks of the last slab were never taken, and have no guard yet.
    fresh: usize,
    /// How many are taken.
    out: usize,
}

impl Pool {
    fn take(&mut self) -> io::Result<NonZeroUsize> {
        let base = match self.free.pop() {
            Some(base) => base,
            None => self.cut()?,
        };
        self.out += 1;
        Ok(base)
    }

    /// A stack that was never used.
    fn cut(&mut self) -> io::Result<NonZeroUsize> {
        if self.fresh == 0 {
            let last = self.slabs.last().map_or(FIRST_SLAB / 2, |slab| slab.len / self.slot);
            let count = (2 * last).min((LARGEST_SLAB / self.slot).max(1));
            let len = count * self.slot;
            self.slabs.push(Record::publish(map(len)?, len, self.slot));
            self.fresh = count;
        }
        let slab = self.slabs.last().ok_or(io::ErrorKind::OutOfMemory)?;
        let count = slab.len / self.slot;
        let limit = slab.start.load(Ordering::Relaxed) + (count - self.fresh) * self.slot;
        guard(limit)?;
        self.fresh -= 1;
        NonZeroUsize::new(limit + self.slot).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn give_back(&mut self, base: NonZeroUsize) {
        self.out -= 1;
        if self.free.len() >= WARM {
            let limit = base.get() - self.slot + PAGE;
            // SAFETY: the range lies in a stack of ours that nobody runs on; its contents are
            // not needed any more.
            unsafe { libc::madvise(limit as *mut _, self.slot - PAGE, libc::MADV_DONTNEED) };
        }
        self.free.push(base);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // A task that was forgotten, or that outlives the thread's locals, still has its stack.
        if self.out > 0 {
            return;
        }
        for slab in &self.slabs {
            let start = slab.start.swap(0, Ordering::AcqRel);
            // SAFETY: the mapping is ours, and every stack in it is in the free list.
            unsafe { libc::munmap(start as *mut _, slab.len) };
        }
    }
}

/// Maps `len` bytes that cost nothing until they are touched.
fn map(len: usize) -> io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // A huge page under a stack of one touched page would cost 2 MiB. Where it cannot be said
    // (no such kernel option), there are none.
    // SAFETY: advice on our own new mapping.
    unsafe { libc::madvise(start, len, libc::MADV_NOHUGEPAGE) };
    Ok(start as usize)
}

/// Makes the page at `limit` a guard.
fn guard(limit: usize) -> io::Result<()> {
    let page = limit as *mut libc::c_void;
    // SAFETY: the page belongs to a slab of ours, and to a stack that nobody has taken yet.
    if unsafe { libc::madvise(page, PAGE, MADV_GUARD_INSTALL) } == 0 {
        return Ok(());
    }
    // SAFETY: as above.
    if unsafe { libc::mprotect(page, PAGE, libc::PROT_NONE) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_pages_with_a_guard() {
        assert_eq!(slot_size(0), MIN_STACK_SIZE + PAGE);
        assert_eq!(slot_size(DEFAULT_STACK_SIZE), DEFAULT_STACK_SIZE + PAGE);
        assert_eq!(slot_size(MIN_STACK_SIZE + 1), MIN_STACK_SIZE + 2 * PAGE);
    }

    #[test]
    fn the_stack_used_last_is_taken_first() {
        let (a, b) = (take(0).unwrap(), take(0).unwrap());
        let (first, second) = (a.base, b.base);
        assert_ne!(first, second);
        drop(a);
        drop(b);
        let again = take(0).unwrap();
        assert_eq!(again.base, second);
    }

    #[test]
    fn stacks_of_a_slab_do_not_overlap_and_are_writable_to_their_end() {
        let stacks: Vec<_> = (0..100).map(|_| take(0).unwrap()).collect();
        for (number, stack) in stacks.iter().enumerate() {
            for address in [stack.base.get() - 8, stack.limit().get() + PAGE] {
                // SAFETY: both words lie in the usable part of a stack that nobody runs on.
                unsafe { (address as *mut usize).write(number) };
            }
        }
        for (number, stack) in stacks.iter().enumerate() {
            for address in [stack.base.get() - 8, stack.limit().get() + PAGE] {
                // SAFETY: written above.
                assert_eq!(unsafe { (address as *const usize).read() }, number);
            }
        }
    }

    #[test]
    fn what_is_reserved_lies_above_the_stack_and_comes_back_with_it() {
        let mut stack = take(0).unwrap();
        let (top, limit) = (stack.base, stack.limit());
        let (one, other) = (stack.reserve::<u8>(), stack.reserve::<[u64; 9]>());
        assert_eq!(one.addr().get(), top.get() - 64);
        assert_eq!((other.addr(), stack.limit()), (stack.base, limit));
        assert_eq!(stack.base.get(), top.get() - 64 - 128);
        drop(stack);
        assert_eq!(take(0).unwrap().base, top);
    }

    #[test]
    fn a_guard_is_told_from_a_stack() {
        let stack = take(0).unwrap();
        assert_eq!(overflowed(stack.limit().get()), Some(MIN_STACK_SIZE));
        assert_eq!(overflowed(stack.limit().get() + PAGE), None);
        assert_eq!(overflowed(&raw const stack as usize), None);
    }

    #[test]
    fn a_thread_gives_its_slabs_back() {
        let address = std::thread::spawn(|| take(0).unwrap().limit().get()).join().unwrap();
        assert_eq!(overflowed(address), None);
    }
}
