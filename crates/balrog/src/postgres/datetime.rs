//! Dates and times of jiff, in the text format of `DateStyle` ISO.
//!
//! PostgreSQL counts years BC and knows no year 0, from 4713 BC to 294276; jiff counts
//! astronomically, from -9999 to 9999. Both know the same Gregorian calendar, without end in both
//! directions.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::Offset;

use super::types::{Failed, oid};
use super::{Encoding, FromSql, ToSql};

/// What has a date in it: its date and what is behind, or its own text where the year has four digits.
trait Dated {
    fn parts(&self) -> (Date, String);
}

impl Dated for Date {
    fn parts(&self) -> (Date, String) {
        (*self, String::new())
    }
}

impl Dated for DateTime {
    fn parts(&self) -> (Date, String) {
        (self.date(), format!(" {}", self.time()))
    }
}

impl Dated for Timestamp {
    fn parts(&self) -> (Date, String) {
        let utc = Offset::UTC.to_datetime(*self);
        (utc.date(), format!(" {}+00", utc.time()))
    }
}

/// As PostgreSQL reads it: `0044-03-15 BC`.
fn write(value: &impl Dated, out: &mut Vec<u8>) {
    let (date, rest) = value.parts();
    let (year, era) = match date.year() {
        year @ 1.. => (year, ""),
        year => (1 - year, " BC"),
    };
    let (month, day) = (date.month(), date.day());
    out.extend_from_slice(format!("{year:04}-{month:02}-{day:02}{rest}{era}").as_bytes());
}

/// As jiff reads it: `-000043-03-15`.
fn read(text: &str) -> Result<Cow<'_, str>, Failed> {
    if text.trim_start_matches('-').eq_ignore_ascii_case("infinity") {
        return Err("it is infinite: ask for an OrInfinity".into());
    }
    let (text, before) = text.strip_suffix(" BC").map_or((text, false), |text| (text, true));
    let (year, rest) = text.split_at(text.find('-').ok_or("it is no date of DateStyle ISO")?);
    if !before && year.len() == 4 {
        return Ok(text.into());
    }
    let counted: i32 = year.parse()?;
    match if before { 1 - counted } else { counted } {
        year @ 0..=9999 => Ok(format!("{year:04}{rest}").into()),
        year @ -9999..0 => Ok(format!("-{:06}{rest}", -year).into()),
        year => Err(format!("the year {year} is not one of jiff's, -9999 to 9999: ask for a String").into()),
    }
}

macro_rules! dated {
    ($($type:ty),+) => {$(
        impl ToSql for $type {
            fn type_oid(&self) -> u32 {
                oid::UNKNOWN
            }

            fn encode(&self, out: &mut Vec<u8>) -> Encoding {
                write(self, out);
                Encoding::Text
            }
        }

        impl FromSql<'_> for $type {
            fn from_text(_type_oid: u32, text: &str) -> Result<Self, Failed> {
                Ok(read(text)?.parse()?)
            }
        }
    )+};
}
dated!(Date, DateTime, Timestamp);

impl ToSql for Time {
    fn type_oid(&self) -> u32 {
        oid::UNKNOWN
    }

    fn encode(&self, out: &mut Vec<u8>) -> Encoding {
        out.extend_from_slice(self.to_string().as_bytes());
        Encoding::Text
    }
}

impl FromSql<'_> for Time {
    fn from_text(_type_oid: u32, text: &str) -> Result<Self, Failed> {
        match text {
            "24:00:00" => Err("jiff's day ends before 24:00:00: ask for a String".into()),
            text => Ok(text.parse()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn years_are_counted_in_two_ways() {
        for (postgres, jiff) in [
            ("2026-02-28", Ok("2026-02-28")),
            ("0001-01-01", Ok("0001-01-01")),
            ("0001-12-31 BC", Ok("0000-12-31")),
            ("0044-03-15 BC", Ok("-000043-03-15")),
            ("9999-12-31", Ok("9999-12-31")),
            ("10000-01-01", Err("10000")),
            ("11001-01-01 BC", Err("-11000")),
            ("-infinity", Err("OrInfinity")),
            ("28.02.2026", Err("DateStyle")),
            ("x-1", Err("invalid digit")),
        ] {
            let date = Date::from_text(0, postgres).map_err(|error| error.to_string());
            match (date, jiff) {
                (Ok(date), Ok(text)) => {
                    assert_eq!(date, text.parse().unwrap(), "{postgres}");
                    let mut back = Vec::new();
                    date.encode(&mut back);
                    assert_eq!(back, postgres.as_bytes());
                }
                (Err(error), Err(part)) => assert!(error.contains(part), "{postgres}: {error}"),
                (date, _) => panic!("{postgres}: {date:?}"),
            }
        }
    }
}
