//! Values of every type, there and back.

use std::fmt::Debug;
use std::ops::Bound;

use balrog::postgres::{Client, Error, FromSql, Multirange, OrInfinity, Range, ToSql};
use bigdecimal::BigDecimal;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time, date, time};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{in_every_mode, only};

fn parse<T: std::str::FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

/// The values one by one, and as an array of one dimension and of two, with a NULL or without.
fn there_and_back<T>(db: &mut Client, name: &str, values: &[T]) -> Result<(), Error>
where
    T: ToSql + for<'a> FromSql<'a> + Clone + PartialEq + Debug,
{
    for value in values {
        let sql = format!("select $1::{name}, $1::{name}::text::{name} = $1::{name}");
        let row = db.query_one(&sql, &[value])?;
        assert_eq!((row.get::<T>(0)?, row.get::<bool>(1)?), (value.clone(), true), "{name}");
    }
    let with_null: Vec<Option<T>> = values.iter().cloned().map(Some).chain([None]).collect();
    let two = vec![values.to_vec(), values.to_vec()];
    let sql = format!("select $1::{name}[], $2::{name}[], $3::{name}[], ('[5:5]={{null}}'::{name}[])");
    let row = db.query_one(&sql, &[&with_null, &two, &Vec::<T>::new()])?;
    assert_eq!(row.get::<Vec<Option<T>>>(0)?, with_null, "{name}[]");
    assert!(row.get::<Vec<T>>(0).is_err(), "{name}[] with a NULL");
    assert_eq!(row.get::<Vec<Vec<T>>>(1)?, two, "{name}[][]");
    assert_eq!(row.get::<Vec<T>>(2)?, [], "{name}[], empty");
    assert_eq!(row.get::<Vec<Option<T>>>(3)?, [None], "{name}[] from 5 on");
    Ok(())
}

#[test]
fn every_type_alone_and_in_arrays() {
    in_every_mode(|url| {
        let db = &mut Client::connect(url)?;
        there_and_back(db, "bool", &[true, false])?;
        there_and_back(db, "int2", &[i16::MIN, 0, i16::MAX])?;
        there_and_back(db, "int4", &[i32::MIN, 0, i32::MAX])?;
        there_and_back(db, "int8", &[i64::MIN, 0, i64::MAX])?;
        there_and_back(db, "float4", &[f32::MIN_POSITIVE, -0.1, f32::MAX, f32::INFINITY])?;
        there_and_back(db, "float8", &[f64::MIN_POSITIVE, -0.1, f64::MAX, f64::NEG_INFINITY])?;
        let texts = ["", "NULL", "a,b", "{\"x\\y\"}", " š ", "a\nb"].map(str::to_owned);
        there_and_back(db, "text", &texts)?;
        there_and_back(db, "bytea", &[vec![], vec![0_u8, 92, 34, 255]])?;
        let numbers = ["0", "-0.10", "79228162514264337593543950335", "0.0000000000000000000000000001"];
        there_and_back(db, "numeric", &numbers.map(parse::<Decimal>))?;
        let long = format!("{}.{}", "9".repeat(1000), "3".repeat(1000));
        there_and_back(db, "numeric", &["0", "-1E+100", "1E-100", &long].map(parse::<BigDecimal>))?;
        there_and_back(db, "uuid", &[Uuid::nil(), parse("67e55044-10b1-426f-9247-bb680e5fe0c8")])?;
        let documents = [json!({"a": ["\"\\", null, 1.5]}), json!([1, [2]]), json!("NULL"), Value::Null];
        there_and_back(db, "jsonb", &documents)?;
        there_and_back(db, "date", &[date(-4712, 1, 1), date(0, 2, 29), date(1, 1, 1), Date::MAX])?;
        there_and_back(db, "time", &[Time::MIN, time(23, 59, 59, 999_999_000)])?;
        let moments = [date(-43, 3, 15).at(12, 0, 0, 0), date(2026, 2, 28).at(7, 5, 0, 250_000_000)];
        there_and_back(db, "timestamp", &moments)?;
        for zone in ["UTC", "Asia/Kolkata", "Africa/Monrovia"] {
            db.execute("select set_config('timezone', $1, false)", &[&zone])?;
            let stamps = ["-000043-03-15T12:00:00Z", "1900-01-01T00:00:00Z", "2026-11-26T12:30:00.25Z"];
            there_and_back(db, "timestamptz", &stamps.map(parse::<Timestamp>))?;
        }
        there_and_back(db, "int4range", &[Range::from(1..5), Range::from(..7), Range::Empty, (..).into()])?;
        let words =
            [("a,\"\\", "b)"), ("", "]")].map(|(from, to)| Range::from(from.to_owned()..to.to_owned()));
        db.batch_execute("create type pg_temp.textrange as range (subtype = text, collation = \"C\")")?;
        there_and_back(db, "textrange", &words)?;
        let (from, to) = (parse::<Timestamp>("2026-01-01T00:00:00Z"), OrInfinity::<Timestamp>::Infinity);
        there_and_back(db, "tstzrange", &[Range::from(OrInfinity::Finite(from)..to)])?;
        let bounds = Bound::Excluded(parse::<Decimal>("1.5"));
        there_and_back(db, "numrange", &[Range::Between(bounds, Bound::Included(parse("2")))])?;
        if db.query_one("select current_setting('server_version_num')::int", &[])?.get::<i32>(0)? >= 140_000 {
            let gaps = Multirange(vec![(1..3).into(), (5..).into()]);
            there_and_back(db, "int4multirange", &[Multirange(vec![]), gaps])?;
            let days = (date(2026, 1, 1)..date(2026, 2, 1)).into();
            there_and_back(db, "datemultirange", &[Multirange(vec![days])])?;
        }
        Ok(())
    });
}

#[test]
fn the_infinite_ones() {
    in_every_mode(|url| {
        let db = &mut Client::connect(url)?;
        there_and_back(db, "date", &[OrInfinity::NegInfinity, OrInfinity::Finite(date(2026, 2, 28))])?;
        there_and_back(db, "timestamp", &[OrInfinity::<DateTime>::Infinity, OrInfinity::NegInfinity])?;
        there_and_back(db, "timestamptz", &[OrInfinity::<Timestamp>::Infinity, OrInfinity::NegInfinity])?;
        if db.query_one("select current_setting('server_version_num')::int", &[])?.get::<i32>(0)? >= 140_000 {
            let finite = OrInfinity::Finite(parse::<Decimal>("1.5"));
            there_and_back(db, "numeric", &[OrInfinity::Infinity, finite, OrInfinity::NegInfinity])?;
        }
        Ok(())
    });
}

#[test]
fn a_value_that_a_type_does_not_have_is_an_error() {
    fn refused<T: for<'a> FromSql<'a> + Debug>(db: &mut Client, sql: &str, part: &str) -> Result<(), Error> {
        let row = db.query_one(&format!("select {sql}"), &[])?;
        let error = row.get::<T>(0).unwrap_err();
        assert!(matches!(error, Error::Conversion(_)), "{sql}: {error}");
        assert!(error.to_string().contains(part), "{sql}: {error}");
        Ok(())
    }
    in_every_mode(|url| {
        let db = &mut Client::connect(url)?;
        refused::<Timestamp>(db, "'infinity'::timestamptz", "OrInfinity")?;
        refused::<Date>(db, "'-infinity'::date", "OrInfinity")?;
        refused::<DateTime>(db, "'294276-12-31 23:59:59'::timestamp", "294276")?;
        refused::<Date>(db, "'10000-01-01'::date", "10000")?;
        refused::<Time>(db, "'24:00'::time", "24:00:00")?;
        refused::<i16>(db, "32768", "i16")?;
        refused::<i32>(db, "'NaN'::float8", "i32")?;
        refused::<bool>(db, "1", "bool")?;
        refused::<Uuid>(db, "'soup'", "Uuid")?;
        refused::<Vec<i32>>(db, "'{1,x}'", "Vec")?;
        refused::<Range<i32>>(db, "'[a,b)'", "Range")?;
        for number in ["'NaN'::numeric", "79228162514264337593543950336", "0.00000000000000000000000000001"] {
            refused::<Decimal>(db, number, "Decimal")?;
        }
        refused::<BigDecimal>(db, "'NaN'::numeric", "BigDecimal")?;
        // Whoever reads a string gets all of them.
        let row = db.query_one("select 'infinity'::date, 'NaN'::numeric", &[])?;
        assert_eq!((only::<&str>(&row), row.get::<&str>(1)?), ("infinity", "NaN"));
        assert!(row.get::<f64>(1)?.is_nan());
        // The server has fewer of some.
        let early = date(-9999, 1, 1);
        assert_eq!(db.query("select $1::date", &[&early]).unwrap_err().code(), Some("22008"));
        Ok(())
    });
}

#[test]
fn bytes_in_the_format_of_old() {
    in_every_mode(|url| {
        let mut db = Client::connect(url)?;
        db.batch_execute("set bytea_output = escape")?;
        there_and_back(&mut db, "bytea", &[vec![0_u8, 39, 92, 34, 255], (0..=255).collect()])
    });
}
