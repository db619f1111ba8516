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
//! be had as a string. Arrays are vectors. The features `json`, `uuid` and `jiff` add
//! `serde_json::Value`, `uuid::Uuid`, and jiff's timestamps, dates and times.
//!
//! Many queries cost one round trip in a [`Pipeline`].
//!
//! Every wait can be interrupted by a deadline or a cancellation. The next use of the connection
//! then cancels what still runs and drops what it sends, so no answer is taken for another's.

mod array;
mod cancel;
mod client;
mod config;
mod copy;
mod error;
mod pipeline;
mod pool;
mod row;
mod transaction;
mod types;

pub use cancel::CancelToken;
pub use client::{Client, Notification};
pub use config::{Config, SslMode};
pub use copy::{CopyIn, CopyOut};
pub use error::{Error, ServerError};
pub use pipeline::{Answer, Pipeline};
pub use pool::{Pool, Pooled};
pub use row::{Index, Row};
pub use transaction::Transaction;
pub use types::{Encoding, FromSql, ToSql};
