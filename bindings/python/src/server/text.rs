//! Strings as WSGI wants them: bytes as latin-1 (PEP 3333, "Unicode Issues").

use std::borrow::Cow;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// A string with one character for each byte.
pub(crate) fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    // SAFETY: the pointer and the length are of one live slice, whose size fits (it is an
    // allocation's); the result is a new string or null with an exception set.
    let string = unsafe {
        let string = ffi::PyUnicode_DecodeLatin1(
            bytes.as_ptr().cast(),
            bytes.len() as ffi::Py_ssize_t,
            std::ptr::null(),
        );
        Bound::from_owned_ptr_or_err(py, string)?
    };
    Ok(string.cast_into::<PyString>()?)
}

/// The bytes of a latin-1 string.
pub(crate) fn bytes<'a>(string: &'a Bound<'_, PyAny>, what: &str) -> PyResult<Cow<'a, [u8]>> {
    let string = string
        .cast::<PyString>()
        .map_err(|_| PyTypeError::new_err(format!("{what} has to be str, not {}", string.get_type())))?;
    let text = string.to_str()?;
    if text.is_ascii() {
        return Ok(Cow::Borrowed(text.as_bytes()));
    }
    text.chars()
        .map(|character| u8::try_from(u32::from(character)))
        .collect::<Result<Vec<u8>, _>>()
        .map(Cow::Owned)
        .map_err(|_| PyValueError::new_err(format!("{what} has a character that is not latin-1")))
}

/// Undoes percent-encoding; what is not a valid escape stays as it is.
pub(crate) fn percent_decoded(path: &str) -> Cow<'_, [u8]> {
    let bytes = path.as_bytes();
    if !bytes.contains(&b'%') {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = match bytes.get(at..at + 3) {
            Some([b'%', high, low]) => digit(*high).zip(digit(*low)),
            _ => None,
        };
        match escape {
            Some((high, low)) => {
                out.push(high << 4 | low);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    Cow::Owned(out)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
