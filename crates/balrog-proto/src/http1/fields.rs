use crate::http1::grammar::list;

/// A part of a section, by its place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span(u16, u16);

impl Span {
    /// Sections are shorter than 64 KiB.
    #[inline]
    pub(crate) const fn new(start: usize, end: usize) -> Self {
        Self(start as u16, end as u16)
    }

    #[inline]
    pub(crate) fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(usize::from(self.0)..usize::from(self.1)).unwrap_or_default()
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == self.1
    }

    pub(crate) const fn len(self) -> usize {
        (self.1 - self.0) as usize
    }

    pub(crate) const fn start(self) -> usize {
        self.0 as usize
    }

    pub(crate) const fn end(self) -> usize {
        self.1 as usize
    }
}

/// A field by its place in the section.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) name: Span,
    pub(crate) value: Span,
}

/// The fields of a head or of a trailer section, in order, as they were sent.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'b> {
    bytes: &'b [u8],
    fields: &'b [Field],
}

impl<'b> Headers<'b> {
    pub(crate) const fn new(bytes: &'b [u8], fields: &'b [Field]) -> Self {
        Self { bytes, fields }
    }

    /// Each name in its original case, and its value without surrounding whitespace.
    pub fn iter(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> + use<'b> {
        let bytes = self.bytes;
        self.fields.iter().map(move |field| (text(field.name.of(bytes)), field.value.of(bytes)))
    }

    /// The values of every field of this name, in any case.
    pub fn all<'a>(&self, name: &'a str) -> impl Iterator<Item = &'b [u8]> + use<'a, 'b> {
        let bytes = self.bytes;
        self.fields
            .iter()
            .filter(move |field| field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes()))
            .map(move |field| field.value.of(bytes))
    }

    /// The first value of this name.
    pub fn get(&self, name: &str) -> Option<&'b [u8]> {
        self.all(name).next()
    }

    /// How many fields there are.
    pub const fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Whether a list-valued field has this element, in any case.
    pub(crate) fn lists(&self, name: &str, element: &str) -> bool {
        self.all(name).any(|value| list(value).any(|other| other.eq_ignore_ascii_case(element.as_bytes())))
    }
}

/// For bytes that were checked to be ASCII.
#[inline]
pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
