//! Dates and the access log.

use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The current second as an HTTP date, formatted once a second.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    second: u64,
    http: String,
    log: String,
}

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Clock {
    /// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7).
    pub(crate) fn http_date(&mut self) -> &str {
        self.update();
        &self.http
    }

    /// `06/Nov/1994:08:49:37 +0000`.
    pub(crate) fn log_date(&mut self) -> &str {
        self.update();
        &self.log
    }

    fn update(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if now != self.second || self.http.is_empty() {
            self.second = now;
            (self.http, self.log) = format(now);
        }
    }
}

fn format(seconds: u64) -> (String, String) {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    let (year, month, day) = civil(days);
    let weekday = DAYS[(days % 7) as usize];
    let month = MONTHS[month as usize - 1];
    (
        format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT"),
        format!("{day:02}/{month}/{year}:{hour:02}:{minute:02}:{second:02} +0000"),
    )
}

/// Year, month and day of a day after 1970-01-01 (the "civil from days" algorithm, whose years
/// begin in March so that the leap day is their last).
const fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let part = (5 * of_year + 2) / 153;
    let day = of_year - (153 * part + 2) / 5 + 1;
    let month = if part < 10 { part + 3 } else { part - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// What the access log says of a request.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) line: String,
    pub(crate) begun: Instant,
}

/// A request line as the log quotes it: nothing in it may end the quotes, or move a terminal.
pub(crate) fn quotable(line: &[u8]) -> String {
    let mut quoted = String::with_capacity(line.len());
    for &byte in line {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f.. => {
                // Writing to a string cannot fail.
                let _ = write!(quoted, "\\x{byte:02x}");
            }
            _ => quoted.push(char::from(byte)),
        }
    }
    quoted
}

/// The same of what should have been a request line, cut short.
pub(crate) fn quotable_start(bytes: &[u8]) -> String {
    /// Enough to know what it was.
    const SHOWN: usize = 200;
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).find(|line| !line.is_empty());
    let line = line.unwrap_or_default();
    let shown = &line[..line.len().min(SHOWN)];
    let rest = if shown.len() < line.len() { "..." } else { "" };
    if shown.is_empty() { "-".into() } else { quotable(shown) + rest }
}

/// Lines that have not been written.
#[derive(Debug, Default)]
pub(crate) struct AccessLog {
    lines: String,
}

/// Lines are written when there are so many bytes of them, or after a moment.
const FULL: usize = 8 * 1024;
/// The moment.
pub(crate) const DELAY: Duration = Duration::from_millis(100);

impl AccessLog {
    /// Adds a line; `true` if it is time to write.
    pub(crate) fn add(&mut self, peer: &str, date: &str, entry: &Entry, status: u16, bytes: u64) -> bool {
        let seconds = entry.begun.elapsed().as_secs_f64();
        let peer = if peer.is_empty() { "-" } else { peer };
        let line = &entry.line;
        // Writing to a string cannot fail.
        let _ = writeln!(self.lines, "{peer} - - [{date}] \"{line}\" {status} {bytes} {seconds:.4}");
        self.lines.len() >= FULL
    }

    /// Whether there is anything to write.
    pub(crate) const fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The lines so far.
    pub(crate) fn take(&mut self) -> String {
        std::mem::take(&mut self.lines)
    }
}
