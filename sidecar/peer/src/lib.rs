//! Who the validators and miners of a subnet are: a registry fed by metagraphs, and the check of a validator's stake.
//!
//! Nothing here speaks to the chain or to a peer. Facts come in through [`Registry::apply`] and [`StakeFacts`], so that
//! what is decided about a peer can be tested without either.

mod diff;
mod registry;
mod verify;

pub use diff::{Change, Entry, Event, Liveness, Rules, diff};
pub use registry::Registry;
pub use verify::{Facts, FactsError, StakeFacts, Verifier, VerifyRules, judge};
