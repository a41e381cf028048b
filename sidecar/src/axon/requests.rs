//! Requests in the name of this hotkey and to it, wherever they come in or go out: at the axon, from the user's container by
//! the unix socket, and from the prober.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sidecar_metagraph::keys::HotkeyPair;
use sidecar_peer::Entry;
use sidecar_peer::handshake::nonce::NonceLimits;
use sidecar_peer::handshake::receiver::{Claim, Proof, Receiver, Request, admit};
use sidecar_peer::handshake::refusal::Refusal;
use sidecar_peer::handshake::strict::{self, RequestLine};
use sidecar_peer::handshake::{Header, Scheme, Sign, UnixTime, body_hash, encrypted, nonce, plain};
use sidecar_peer::limits::{LimitPolicy, Limits};
use sidecar_util::{Hotkey, Uid};
use tokio::time::Instant;

use crate::app::App;
use crate::ingest::announce;

/// Lanes for signatures: as many as a sidecar has worker threads at most.
const LANES: usize = 2;

/// The sidecar's hotkey as the handshake wants it.
struct OwnKey(HotkeyPair);

impl Sign for OwnKey {
    fn hotkey(&self) -> Hotkey {
        self.0.hotkey()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message)
    }
}

/// Signs requests and verifies them.
pub(crate) struct Requests {
    key: OwnKey,
    /// Nonces and keys of senders: one store for all ways in, or a request could come in once by each.
    pub(crate) receiver: Receiver,
    /// Limits of the axon.
    pub(crate) limits: Limits,
    /// When who proved last that it is alive, by a request or as the answer to a probe.
    signs_of_life: Mutex<BTreeMap<Hotkey, Instant>>,
}

/// A sender that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    /// Who, and in which scheme.
    pub(crate) proof: Proof,
    /// Its slot.
    pub(crate) uid: Uid,
}

/// Whose requests are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Senders {
    /// Validators with enough stake.
    Validators,
    /// Whoever is registered.
    Neurons,
}

impl Requests {
    /// Starts now. Has to be made within the runtime: verification has tasks.
    pub(crate) fn new(pair: HotkeyPair) -> Self {
        let receiver = Receiver::spawn(&pair.hotkey(), NonceLimits::default(), LANES, UnixTime::now());
        let limits = Limits::new(LimitPolicy::default());
        Self { key: OwnKey(pair), receiver, limits, signs_of_life: Mutex::default() }
    }

    /// Signs as this sidecar's hotkey.
    pub(crate) fn key(&self) -> &dyn Sign {
        &self.key
    }

    /// The headers of a request to `receiver`. `uuid` names the symmetric key of an encrypted one.
    pub(crate) fn sign(
        &self,
        scheme: Scheme,
        receiver: &Hotkey,
        line: RequestLine<'_>,
        hash: Option<&str>,
        uuid: &str,
    ) -> Vec<Header> {
        let (now, mut random) = (UnixTime::now(), StdRng::from_os_rng());
        match scheme {
            Scheme::Plain => {
                let payload_hash = Request { line, body_hash: hash }.payload_hash();
                plain::headers_for_hash(&self.key, receiver, &nonce::fiber_nonce(now, &mut random), payload_hash)
            }
            Scheme::Encrypted => encrypted::headers(&self.key, receiver, &nonce::fiber_nonce(now, &mut random), uuid),
            Scheme::Strict => {
                let empty = body_hash(b"");
                let hash = hash.unwrap_or(&empty);
                strict::headers(&self.key, receiver, line, hash, now, &strict::nonce(&mut random))
            }
        }
    }

    /// Whether the sender of a claim may be listened to at all, before anything costly is done for it. `ip` is where it came
    /// from, if it came from outside.
    pub(crate) async fn admit(
        &self,
        app: &App,
        claim: &Claim,
        from: Senders,
        ip: Option<IpAddr>,
    ) -> Result<(Hotkey, Uid), Refusal> {
        let sender = claim.sender()?;
        // Strangers end here once the chain was read, without a question to it.
        let entry = app.registry.get(&sender).filter(Entry::is_registered);
        if entry.is_none() && app.chain.view().metagraph.is_some() {
            return Err(Refusal::UnknownHotkey);
        }
        if let Some(ip) = ip {
            self.limits.ask_claim(ip, sender, UnixTime::now())?;
        }
        let uid = if let (Senders::Neurons, Some(entry)) = (from, entry) {
            entry.uid
        } else {
            let verdict = app.verifier.verify(&sender).await;
            let verdict = verdict.map_err(|error| Refusal::Unavailable { reason: error.reason })?;
            app.metrics.verification(&verdict.reason, verdict.cached);
            match from {
                Senders::Validators => admit(&verdict)?,
                Senders::Neurons => verdict.uid.ok_or(Refusal::UnknownHotkey)?,
            }
        };
        self.receiver.check(claim, &sender, UnixTime::now())?;
        Ok((sender, uid))
    }

    /// Verifies a claim whose sender was admitted.
    pub(crate) async fn prove(
        &self,
        app: &App,
        claim: &Claim,
        (sender, uid): (Hotkey, Uid),
        request: Request<'_>,
    ) -> Result<Verified, Refusal> {
        let proof = self.receiver.prove(claim, &sender, request, UnixTime::now()).await?;
        self.limits.ask_hotkey(sender, UnixTime::now())?;
        self.heard_from(app, sender);
        Ok(Verified { proof, uid })
    }

    /// A peer proved that it is alive.
    pub(crate) fn heard_from(&self, app: &App, hotkey: Hotkey) {
        // Only neurons are remembered, so that there are never more than the registry has.
        if app.registry.get(&hotkey).is_none() {
            return;
        }
        self.signs_of_life.lock().insert(hotkey, Instant::now());
        if let Some(change) = app.registry.heard_from(&hotkey) {
            announce(app, &change);
        }
    }

    /// Calls those silent that gave no sign of life for so long.
    pub(crate) fn sweep(&self, app: &App, silence: Duration) {
        let mut silent = Vec::new();
        self.signs_of_life.lock().retain(|hotkey, heard| {
            let alive = heard.elapsed() <= silence;
            if !alive {
                silent.push(*hotkey);
            }
            alive
        });
        for hotkey in silent {
            if let Some(change) = app.registry.silent(&hotkey) {
                announce(app, &change);
            }
        }
    }
}
