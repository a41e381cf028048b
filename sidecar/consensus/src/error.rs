//! What can go wrong for the program that runs a member.

use std::io;
use std::path::PathBuf;

use sidecar_util::Hotkey;

/// An error of [`crate::Consensus`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsensusError {
    /// The data directory cannot be read or written.
    #[error("log of the group in {}", path.display())]
    Disk {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process has the data directory.
    #[error("log of the group in {} is in use: stop the other sidecar of this validator first", path.display())]
    DiskInUse {
        /// The directory.
        path: PathBuf,
    },
    /// The data directory was written by a later version.
    #[error("data directory {} has format `{found}`, newer than {known}: update the sidecar", data_dir.display())]
    DiskTooNew {
        /// The directory.
        data_dir: PathBuf,
        /// Its format.
        found: u16,
        /// Latest format known here.
        known: u16,
    },
    /// The data directory belongs to another group.
    #[error(
        "data directory {} belongs to group `{found}`, expected `{expected}`: give the validator its own volume, or wipe \
         it to join the new group", data_dir.display()
    )]
    ForeignCluster {
        /// The directory.
        data_dir: PathBuf,
        /// Group on the disk.
        found: String,
        /// Group asked for.
        expected: String,
    },
    /// The data directory belongs to another validator.
    #[error(
        "data directory {} belongs to validator `{found}`, expected `{expected}`: give each validator its own volume",
        data_dir.display()
    )]
    ForeignHotkey {
        /// The directory.
        data_dir: PathBuf,
        /// Validator on the disk.
        found: Hotkey,
        /// Validator that started.
        expected: Hotkey,
    },
    /// The group is described in a way that cannot work.
    #[error("{field}: `{value}` {expected}")]
    Group {
        /// Field of the group's description.
        field: &'static str,
        /// Its value.
        value: String,
        /// What was expected, as the end of a sentence.
        expected: &'static str,
    },
    /// This member does not lead.
    #[error("this member does not lead the group: ask {}", leader.map_or("again later, nobody leads now".into(), |leader| leader.to_string()))]
    NotLeader {
        /// Who does, as far as this member knows.
        leader: Option<Hotkey>,
    },
    /// Too few voters answer.
    #[error("fewer than half of the voters answer this leader: ask again later")]
    NoQuorum,
    /// The proposal may or may not take effect.
    #[error("the outcome of the proposal is unknown ({cause}): read before proposing again")]
    OutcomeUnknown {
        /// Why.
        cause: String,
    },
    /// The member has stopped and does not recover.
    #[error("this member has stopped ({cause}): restart the sidecar")]
    Stopped {
        /// Why.
        cause: String,
    },
}

impl ConsensusError {
    /// Whether another member should be asked, now or soon.
    pub fn is_not_leader(&self) -> bool {
        matches!(self, Self::NotLeader { .. } | Self::NoQuorum)
    }

    /// Whether the same call can succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        self.is_not_leader()
    }
}
