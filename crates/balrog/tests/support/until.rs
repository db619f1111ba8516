//! How tests wait for what is to come about, and what they count then.

use std::io;
use std::time::{Duration, Instant};

use balrog::sleep_until;

/// Longer than anything takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Waits for `condition`, which is to hold soon.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) -> io::Result<()> {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LONG, "still not: {what}");
        sleep_until(Instant::now() + Duration::from_millis(5))?;
    }
    Ok(())
}

/// How many descriptors this process has.
pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
