//! A client for developers: signs and submits with the runtime's own types, and reads tables.

mod connection;
mod metadata;
mod query;
mod tx;

pub use connection::{Connection, Inclusion};
pub use query::{Query, query};
pub use tx::{Transaction, transact};
