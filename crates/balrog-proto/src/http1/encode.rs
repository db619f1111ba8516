use crate::Misuse;
use crate::http1::grammar::{is_field_value, is_token};
use crate::http1::trailers::is_forbidden;

/// Writes a status line. The reason may be empty.
pub(crate) fn write_status(out: &mut Vec<u8>, status: u16, reason: &str) -> Result<(), Misuse> {
    // By far the most frequent one.
    if status == 200 && reason == "OK" {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return Ok(());
    }
    if !(100..=999).contains(&status) {
        return Err(Misuse("a status code has three digits"));
    }
    if !is_field_value(reason.as_bytes()) {
        return Err(Misuse("the reason phrase has a control character"));
    }
    write_number(out, b"HTTP/1.1 ", u64::from(status), b" ");
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Writes one field, whose name and value the caller does not vouch for: a line end in either
/// would be the beginning of another field or message.
pub(crate) fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<(), Misuse> {
    if !is_token(name) {
        return Err(Misuse("a header name is not a token"));
    }
    if !is_field_value(value) {
        return Err(Misuse("a header value has a control character"));
    }
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

pub(crate) fn write_length(out: &mut Vec<u8>, length: u64) {
    write_number(out, b"Content-Length: ", length, b"\r\n");
}

/// Writes a number between the few bytes before and behind it, all at once.
fn write_number<const B: usize, const E: usize>(
    out: &mut Vec<u8>,
    before: &[u8; B],
    mut number: u64,
    end: &[u8; E],
) {
    let mut line = [0_u8; 40];
    let mut at = line.len() - E;
    line[at..].copy_from_slice(end);
    loop {
        at -= 1;
        line[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    line[at - B..at].copy_from_slice(before);
    out.extend_from_slice(&line[at - B..]);
}

/// Appends `data` as one chunk; nothing if it is empty, for that would end the body.
pub(crate) fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    write_chunk_size(out, data.len());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Writes the line before a chunk of `n` bytes.
pub(crate) fn write_chunk_size(out: &mut Vec<u8>, n: usize) {
    let mut line = *b"0000000000000000\r\n";
    let (mut at, mut left) = (16, n);
    while left > 0 || at == 16 {
        at -= 1;
        line[at] = b"0123456789abcdef"[left & 15];
        left >>= 4;
    }
    out.extend_from_slice(&line[at..]);
}

/// Writes the last chunk and the trailer section, all of it or nothing.
pub(crate) fn write_trailers(out: &mut Vec<u8>, trailers: &[(&[u8], &[u8])]) -> Result<(), Misuse> {
    if trailers.iter().any(|(name, _)| is_forbidden(name)) {
        return Err(Misuse("a field that a trailer section must not have"));
    }
    let before = out.len();
    out.extend_from_slice(b"0\r\n");
    let written = trailers.iter().try_for_each(|(name, value)| write_field(out, name, value));
    match written {
        Ok(()) => out.extend_from_slice(b"\r\n"),
        Err(_) => out.truncate(before),
    }
    written
}

/// The usual reason phrase of the statuses that a machine sends by itself.
pub(crate) const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        400 => "Bad Request",
        408 => "Request Timeout",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}
