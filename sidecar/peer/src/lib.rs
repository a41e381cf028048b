//! Who the validators and miners of a subnet are, and whether they are who they say: a registry fed by metagraphs, the
//! check of a validator's stake, the schemes in which peers sign requests to each other, and limits on all of it.
//!
//! Nothing here speaks to the chain or to a peer. Facts come in through [`Registry::apply`] and [`StakeFacts`], requests
//! through [`handshake`], so that what is decided about a peer can be tested without either.

mod diff;
mod registry;
mod sync;
mod verify;
mod watch;

pub mod handshake;
pub mod limits;

pub use diff::{Change, Entry, Event, Liveness, Reachability, Rules, diff};
pub use registry::{Registry, Snapshot};
pub use verify::{Clock, Facts, FactsError, StakeFacts, Verifier, VerifyRules, judge};
pub use watch::{Watch, WatchEvent};
