//! PostgreSQL.
//!
//! ```no_run
//! use balrog::postgres::{Client, Error};
//!
//! fn order(db: &mut Client, dish: &str) -> Result<i64, Error> {
//!     let mut transaction = db.transaction()?;
//!     let row = transaction.query_one("insert into orders(dish) values ($1) returning id", &[&dish])?;
//!     let id = row.get("id")?;
//!     transaction.execute("update stock set left = left - 1 where dish = $1", &[&dish])?;
//!     transaction.commit()?;
//!     Ok(id)
//! }
//!
//! let mut db = Client::connect("postgres://me:secret@localhost/kitchen")?;
//! println!("order {}", order(&mut db, "soup")?);
//! # Ok::<(), Error>(())
//! ```
//!
//! A query and its parameters go out in one piece, and nothing is left behind in the session.
//! Numbers, booleans and bytes say their types, strings leave theirs to the server: a string can
//! be a parameter of any type, a date or a JSON document for example, and any value of a row can
//! be had as a string. More types come with features:
//!
//! | PostgreSQL | Rust | feature |
//! |---|---|---|
//! | `boolean`, `smallint`, `integer`, `bigint`, `real`, `double precision` | `bool`, `i16`, `i32`, `i64`, `f32`, `f64` | |
//! | `text` and anything else | `&str`, `String`; any `FromStr` by [`Row::parse`] | |
//! | `bytea` | `[u8]`, `Vec<u8>` | |
//! | arrays, of any dimension | `Vec`, in a `Vec` for each dimension | |
//! | ranges, multiranges | [`Range`], [`Multirange`] | |
//! | `numeric` | `rust_decimal::Decimal`: 28 digits, and an error for more | `rust_decimal` |
//! | `numeric` | `bigdecimal::BigDecimal`: any number of digits | `bigdecimal` |
//! | `json`, `jsonb` | `serde_json::Value` | `json` |
//! | `uuid` | `uuid::Uuid` | `uuid` |
//! | `timestamptz`, `timestamp`, `date`, `time` | `jiff::Timestamp`, `jiff::civil::{DateTime, Date, Time}` | `jiff` |
//! | a date, time or number that may be infinite | [`OrInfinity`] of it | |
//! | NULL | `Option` | |
//!
//! A value that a type does not have, `NaN` as a `Decimal` or the year 10000 as a `Date`, is an
//! [`Error::Conversion`], never another value. Times have microseconds in PostgreSQL.
//!
//! Many queries cost one round trip in a [`Pipeline`].
//!
//! Every wait can be interrupted by a deadline or a cancellation. The next use of the connection
//! then cancels what still runs and drops what it sends, so no answer is taken for another's.

mod array;
mod cancel;
mod client;
mod config;
mod connect;
mod copy;
#[cfg(feature = "jiff")]
mod datetime;
mod error;
mod pipeline;
mod pool;
mod range;
mod row;
mod transaction;
mod types;

pub use cancel::CancelToken;
pub use client::{Client, Notification};
pub use config::{Config, Host, Keepalive, SslMode, TargetSession};
pub use copy::{CopyIn, CopyOut};
pub use error::{Error, ServerError};
pub use pipeline::{Answer, Pipeline};
pub use pool::{Pool, Pooled};
pub use range::{Multirange, Range};
pub use row::{Index, Row};
pub use transaction::Transaction;
pub use types::{Encoding, FromSql, OrInfinity, ToSql};
