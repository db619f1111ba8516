use std::io::Write;

use crate::Misuse;
use crate::http1::grammar::{is_field_value, is_token};

/// Writes a status line. The reason may be empty.
pub(crate) fn write_status(out: &mut Vec<u8>, status: u16, reason: &str) -> Result<(), Misuse> {
    if !(100..=999).contains(&status) {
        return Err(Misuse("a status code has three digits"));
    }
    if !is_field_value(reason.as_bytes()) {
        return Err(Misuse("the reason phrase has a control character"));
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    write_number(out, u64::from(status));
    out.push(b' ');
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
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

pub(crate) fn write_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"Content-Length: ");
    write_number(out, length);
    out.extend_from_slice(b"\r\n");
}

fn write_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends `data` as one chunk; nothing if it is empty, for that would end the body.
pub fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    // Writing to a `Vec` does not fail.
    let _ = write!(out, "{:x}\r\n", data.len());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// The usual reason phrase of the statuses that a machine sends by itself.
pub(crate) const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
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
