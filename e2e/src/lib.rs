//! A real Kubernetes on one machine, without Docker and without pulled images; what runs on it; and what the suites need
//! to drive it.
//!
//! The program `mycelium-cluster` is the face of this crate, the modules are its parts in the order in which `up` uses them:
//! [`choice`] decides between the processes of this crate and kind; [`packages`] and [`programs`] see to what must be
//! there before anything starts; [`cluster`] starts, repairs and removes a cluster; [`image`] makes images from the workspace;
//! [`deploy`] installs the charts and waits; [`provisioner`] serves volumes meanwhile. The suites use [`kubectl`] and [`wait`].
//!
//! Everything of a cluster lives in one folder and in one network namespace of its own: bridges, routes and packet filter rules
//! cannot collide with the machine's, no packet finds a way out, and all of it vanishes with the namespace.

pub mod addresses;
pub mod args;
pub mod bench;
pub mod choice;
pub mod cluster;
pub mod command;
pub mod daemon;
pub mod deploy;
pub mod image;
pub mod kind;
pub mod kubectl;
pub mod layout;
pub mod packages;
pub mod pki;
pub mod programs;
pub mod progress;
pub mod provisioner;
pub mod run;
pub mod wait;

use sha2::{Digest, Sha256};

/// The SHA-256 of `bytes` in lower-case hexadecimal digits.
pub fn sha256_hex(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(Sha256::digest(bytes.as_ref()))
}
