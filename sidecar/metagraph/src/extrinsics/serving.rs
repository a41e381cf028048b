//! Telling the chain where this neuron can be reached, no oftener than needed.

use std::net::IpAddr;

use sidecar_util::{AxonProtocol, NetUid, check_port, check_public_ip, ip_to_chain};

use super::call::{Call, protocol_byte};
use super::failure::{FailureClass, SubmitError};
use super::submitter::{Intent, Submitted, SubmitterHandle, Wait};

/// The axon that the chain should show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AxonWish {
    /// Subnet.
    pub netuid: NetUid,
    /// Address that peers connect to.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
    /// Transport.
    pub protocol: AxonProtocol,
    /// Version of the neuron's software.
    pub version: u32,
    /// Whether private addresses are fine: on networks that are marked `local`.
    pub local: bool,
}

/// What was done about an axon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Served {
    /// The chain showed it already; nothing was submitted.
    Already {
        /// Since this block.
        block: u64,
        /// Whether that block is final.
        finalized: bool,
    },
    /// It was served now.
    Now(Submitted),
}

impl SubmitterHandle {
    /// Serves an axon unless the chain shows the same one already, or would refuse another so soon.
    ///
    /// # Errors
    /// A wrong address, the rate limit with the blocks to wait, or what the submission met.
    pub async fn serve_axon(&self, key: &str, wish: &AxonWish, wait: Wait) -> Result<Served, SubmitError> {
        let name = "serve_axon";
        let wrong = |source| SubmitError::Argument { call: name, source };
        check_public_ip("ip", wish.ip, wish.local).map_err(wrong)?;
        check_port("port", wish.port.into()).map_err(wrong)?;
        let call = Call::ServeAxon {
            netuid: wish.netuid,
            ip: wish.ip,
            port: wish.port,
            protocol: wish.protocol,
            version: wish.version,
        };
        call.check().map_err(wrong)?;
        let intent = Intent { key: key.to_owned(), call, wait };
        // What was given before is told of as what it is, not as an axon that is there already.
        if self.recall(key).await?.is_some() {
            return self.submit(intent).await.map(Served::Now);
        }
        let unreachable = |error: crate::ChainError| SubmitError::Unreachable { why: error.chain() };
        let link = self.link().await?;
        let tips = link.tips().await.map_err(unreachable)?;
        let at = link.at(tips.best).await.map_err(unreachable)?;
        let (axon, rate_limit) = link.axon(&at, wish.netuid, &self.hotkey()).await.map_err(unreachable)?;
        if let Some(axon) = axon {
            let (ip, ip_type) = ip_to_chain(wish.ip);
            let shown = (axon.ip, axon.ip_type, axon.port, axon.protocol, axon.version);
            if shown == (ip, ip_type, wish.port, protocol_byte(wish.protocol), wish.version) {
                let finalized = axon.block <= tips.finalized.number;
                return Ok(Served::Already { block: axon.block, finalized });
            }
            let allowed = axon.block.saturating_add(rate_limit);
            let blocks = allowed.saturating_sub(tips.best.number + 1);
            if axon.block > 0 && blocks > 0 {
                return Err(SubmitError::Refused {
                    call: name,
                    name: "ServingRateLimitExceeded".to_owned(),
                    text: format!("served in block {}, the subnet's limit is {rate_limit} blocks", axon.block),
                    class: FailureClass::WaitBlocks(blocks),
                });
            }
        }
        self.submit(intent).await.map(Served::Now)
    }
}
