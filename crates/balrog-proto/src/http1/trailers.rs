use crate::Error;
use crate::http1::limits::Limits;
use crate::http1::parse::{Caps, LONGEST, Section};

/// Which trailer fields an owner wants to see. They come apart from the header fields and are
/// never merged into them; every other one is checked and dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trailers {
    /// None.
    #[default]
    None,
    /// Those with one of these names, in any case.
    Only(&'static [&'static str]),
    /// All that a trailer section may have.
    All,
}

impl Trailers {
    fn want(self, name: &[u8]) -> bool {
        match self {
            Self::None => false,
            Self::Only(names) => names.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes())),
            Self::All => true,
        }
    }
}

/// Whether a field may stand in a trailer section.
///
/// "A sender MUST NOT generate a trailer field unless the sender knows the corresponding header
/// field name's definition permits it", and not one "for message framing [...], routing [...],
/// request modifiers [...], authentication [...], response control data [...], or determining
/// how to process the content" (RFC 9110 section 6.5.1). One that did could change what was
/// decided already.
pub(crate) fn is_forbidden(name: &[u8]) -> bool {
    FORBIDDEN.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

const FORBIDDEN: &[&str] = &[
    // Framing and routing.
    "transfer-encoding",
    "content-length",
    "host",
    "connection",
    "trailer",
    "te",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "via",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    // Request modifiers.
    "cache-control",
    "expect",
    "max-forwards",
    "pragma",
    "range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "if-range",
    // Authentication.
    "authorization",
    "proxy-authorization",
    "proxy-authenticate",
    "www-authenticate",
    "cookie",
    "set-cookie",
    // Response control.
    "age",
    "expires",
    "date",
    "location",
    "retry-after",
    "vary",
    "warning",
    // How to process the content.
    "content-encoding",
    "content-type",
    "content-range",
];

/// A trailer section that is being read.
#[derive(Debug)]
pub(crate) struct TrailerSection(pub(crate) Trailers);

impl Section for TrailerSection {
    const FIRST_LINE: bool = false;
    const ANY_CONTROL: bool = false;

    fn first_line(&mut self, _bytes: &[u8], at: usize) -> Result<usize, Error> {
        Ok(at)
    }

    fn field(&mut self, name: &[u8], _value: &[u8]) -> Result<bool, Error> {
        if is_forbidden(name) {
            return Err(Error::violation(
                400,
                "a field that a trailer section must not have",
                "RFC 9110 section 6.5.1",
            ));
        }
        Ok(self.0.want(name))
    }

    fn caps(limits: &Limits) -> Caps {
        Caps {
            first_line: 0,
            line: limits.header_line,
            total: (limits.trailers.min(LONGEST), "trailers"),
            fields: (limits.trailer_fields, "trailer_fields"),
        }
    }
}
