//! What a `Set-Cookie` field says (RFC 6265bis section 5.6), without the rules on who may say it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// "If the sum of the lengths of the name string and the value string is more than 4096 octets"
const PAIR: usize = 4096;
/// "If the attribute-value is longer than 1024 octets, ignore the cookie-av string"
const ATTRIBUTE: usize = 1024;
/// "cookie-age-limit SHOULD be 400 days or less".
const LONGEST: Duration = Duration::from_secs(400 * 86_400);

/// A cookie as it was sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SetCookie<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    /// When it ends; `None`: with the jar.
    pub(super) expires: Option<SystemTime>,
    /// In lower case, without a leading dot.
    pub(super) domain: Option<String>,
    /// Begins with a slash.
    pub(super) path: Option<String>,
    pub(super) secure: bool,
}

impl<'a> SetCookie<'a> {
    /// `None`: it is to be ignored.
    pub(super) fn parse(field: &'a [u8], now: SystemTime) -> Option<Self> {
        if field.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return None;
        }
        let mut parts = field.split(|byte| *byte == b';');
        // Without a "=", it is all value.
        let (name, value) = match pair(parts.next()?) {
            (value, None) => (&b""[..], value),
            (name, Some(value)) => (name, value),
        };
        if name.len() + value.len() > PAIR || name.len() + value.len() == 0 {
            return None;
        }
        let mut cookie = Self { name, value, ..Self::default() };
        let mut age = None;
        for part in parts {
            let (name, value) = pair(part);
            let value = value.unwrap_or_default();
            if value.len() > ATTRIBUTE {
                continue;
            }
            // The last of a name counts, also where it says nothing.
            match &*name.to_ascii_lowercase() {
                b"expires" => cookie.expires = date(value).or(cookie.expires),
                b"max-age" => age = max_age(value).or(age),
                b"domain" => {
                    // What is not ASCII is no domain that a URL could have.
                    let domain = std::str::from_utf8(value).ok().filter(|domain| domain.is_ascii())?;
                    let domain = domain.strip_prefix('.').unwrap_or(domain).to_ascii_lowercase();
                    cookie.domain = Some(domain).filter(|domain| !domain.is_empty());
                }
                b"path" => {
                    let path = std::str::from_utf8(value).ok().filter(|path| path.starts_with('/'));
                    cookie.path = path.map(str::to_owned);
                }
                b"secure" => cookie.secure = true,
                _ => {}
            }
        }
        let latest = now + LONGEST;
        cookie.expires = match age {
            Some(age) => Some(age.map_or(UNIX_EPOCH, |age| now + age.min(LONGEST))),
            None => cookie.expires.map(|expires| expires.min(latest)),
        };
        Some(cookie)
    }
}

fn pair(part: &[u8]) -> (&[u8], Option<&[u8]>) {
    match part.iter().position(|byte| *byte == b'=') {
        Some(at) => (part[..at].trim_ascii(), Some(part[at + 1..].trim_ascii())),
        None => (part.trim_ascii(), None),
    }
}

/// How long from now; `Some(None)`: it has ended.
fn max_age(value: &[u8]) -> Option<Option<Duration>> {
    let (negative, digits) = match value {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // More digits than fit are more than any limit.
    let seconds = digits
        .iter()
        .fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    Some((!negative && seconds > 0).then(|| Duration::from_secs(seconds)))
}

/// Section 5.1.1: servers write dates in more ways than the one they should.
fn date(value: &[u8]) -> Option<SystemTime> {
    let is_delimiter =
        |byte: &u8| matches!(byte, b'\t' | b' '..=b'/' | b';'..=b'@' | b'['..=b'`' | b'{'..=b'~');
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for token in value.split(is_delimiter).filter(|token| !token.is_empty()) {
        if time.is_none()
            && let Some(found) = hms(token)
        {
            time = Some(found);
        } else if day.is_none()
            && let Some((found, _)) = number(token, 1, 2)
        {
            day = Some(found);
        } else if month.is_none()
            && let Some(found) = month_of(token)
        {
            month = Some(found);
        } else if year.is_none()
            && let Some((found, _)) = number(token, 2, 4)
        {
            year = Some(match found {
                70..=99 => found + 1900,
                0..=69 => found + 2000,
                _ => found,
            });
        }
    }
    let ((hour, minute, second), day, month, year) = (time?, day?, month?, year?);
    if year < 1601 || hour > 23 || minute > 59 || second > 59 || day == 0 || day > days(month, year) {
        return None;
    }
    // Before 1970, it has ended as well.
    let since = (1970..year).map(|year| 365 + u64::from(is_leap(year))).sum::<u64>()
        + (1..month).map(|month| u64::from(days(month, year))).sum::<u64>()
        + u64::from(day - 1);
    let seconds = since * 86_400 + u64::from(hour * 3600 + minute * 60 + second);
    Some(if year < 1970 { UNIX_EPOCH } else { UNIX_EPOCH + Duration::from_secs(seconds) })
}

const fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days(month: u32, year: u32) -> u32 {
    match month {
        2 => 28 + is_leap(year) as u32,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn month_of(token: &[u8]) -> Option<u32> {
    let token = token.get(..3)?.to_ascii_lowercase();
    let names = b"janfebmaraprmayjunjulaugsepoctnovdec".chunks(3);
    (1..).zip(names).find(|(_, name)| *name == token).map(|(month, _)| month)
}

/// A number of `least` to `most` digits and what follows, which is no digit.
fn number(token: &[u8], least: usize, most: usize) -> Option<(u32, &[u8])> {
    let digits = token.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = token.split_at(digits);
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    (least..=most).contains(&digits).then_some((number, rest))
}

fn hms(token: &[u8]) -> Option<(u32, u32, u32)> {
    let (hour, rest) = number(token, 1, 2)?;
    let (minute, rest) = number(rest.strip_prefix(b":")?, 1, 2)?;
    let (second, _) = number(rest.strip_prefix(b":")?, 1, 2)?;
    Some((hour, minute, second))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn dates_are_read_in_all_their_ways() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "6 november 1994 8:49:37",
            "08:49:37 1994 Nov 06",
        ] {
            // A year of four digits is no day, but one of two in front would be.
            assert_eq!(date(text.as_bytes()), Some(at(784_111_777)), "{text}");
        }
        assert_eq!(date(b"29 Feb 2024 00:00:00"), Some(at(1_709_164_800)));
        assert_eq!(date(b"01 Jan 1960 00:00:00"), Some(UNIX_EPOCH));
        for bad in [
            "",
            "tomorrow",
            "29 Feb 2023 00:00:00",
            "6 Nov 1994 24:00:00",
            "6 Nov 1994 00:60:00",
            "6 Nov 1600 00:00:00",
            "0 Nov 1994 00:00:00",
            "6 Nov 1994",
            "6 Nov 19940 00:00:00",
        ] {
            assert_eq!(date(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn fields_are_read_as_browsers_do() {
        let now = at(1_000_000_000);
        let parse = |text: &'static str| SetCookie::parse(text.as_bytes(), now);
        let cookie = parse(" a = b=c ; Domain=.Example.COM; path=/x; SECURE; HttpOnly").unwrap();
        assert_eq!((cookie.name, cookie.value, cookie.secure), (&b"a"[..], &b"b=c"[..], true));
        assert_eq!((cookie.domain.as_deref(), cookie.path.as_deref()), (Some("example.com"), Some("/x")));
        let lone = parse("lone").unwrap();
        assert_eq!((lone.name, lone.value), (&b""[..], &b"lone"[..]));
        for bad in ["", "=", " ; Secure", "a=b\u{1}", "a=b; domain=\u{fc}.example"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        for (text, expires) in [
            ("a=b", None),
            ("a=b; max-age=10", Some(at(1_000_000_010))),
            ("a=b; max-age=10; expires=Sun, 06 Nov 1994 08:49:37 GMT", Some(at(1_000_000_010))),
            ("a=b; max-age=1x", None),
            ("a=b; max-age=-", None),
            ("a=b; max-age=0", Some(UNIX_EPOCH)),
            ("a=b; max-age=-5", Some(UNIX_EPOCH)),
            ("a=b; max-age=99999999999999999999999", Some(now + LONGEST)),
            ("a=b; expires=01 Jan 2999 00:00:00", Some(now + LONGEST)),
            ("a=b; expires=never", None),
        ] {
            assert_eq!(parse(text).unwrap().expires, expires, "{text}");
        }
        let long = format!("a={}", "b".repeat(PAIR - 1));
        assert!(SetCookie::parse(long.as_bytes(), now).is_some());
        assert!(SetCookie::parse(format!("{long}b").as_bytes(), now).is_none());
        let ignored = format!("a=b; path=/{}", "x".repeat(ATTRIBUTE));
        assert_eq!(SetCookie::parse(ignored.as_bytes(), now).unwrap().path, None);
    }
}
