//! How many extrinsics an account has sent, and how many of them this submitter accounts for: whoever has a copy of the key
//! shows in the difference.

use tokio::sync::oneshot;

use super::failure::SubmitError;
use super::submitter::{Command, SubmitterHandle};
use crate::ChainError;

/// What the chain and the journal say of an account's extrinsics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonces {
    /// The newest final block.
    pub block: u64,
    /// Extrinsics of the account in blocks up to that one.
    pub sent: u64,
    /// The highest nonce that this submitter remembers to have sent.
    pub used: Option<u64>,
}

impl SubmitterHandle {
    /// Asks the chain and the journal, in this order: what is counted by the former is in the latter.
    ///
    /// # Errors
    /// The chain could not be asked, or the submitter has ended.
    pub async fn nonces(&self) -> Result<Nonces, SubmitError> {
        let unreachable = |error: ChainError| SubmitError::Unreachable { why: error.chain() };
        let link = self.link().await?;
        let block = link.tips().await.map_err(unreachable)?.finalized;
        let sent = link.nonce(&self.hotkey(), block).await.map_err(unreachable)?;
        let (reply, answer) = oneshot::channel();
        self.command(Command::Used { reply }).await?;
        let used = answer.await.map_err(|_| SubmitError::Closed)?;
        Ok(Nonces { block: block.number, sent, used })
    }
}
