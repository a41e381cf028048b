//! Fast verification of sr25519 signatures.
//!
//! One verification is a double multiplication of points, which nothing makes much cheaper. Under load, though, requests
//! wait for each other anyway, and many signatures that wait together are verified as one equation for about half the
//! price each. So signatures go through lanes: a lane takes all that waits, up to [`BATCH_MAX`], and never waits for more.
//! A lone signature is verified alone and at once; a batch that does not hold is verified again one by one, which finds
//! the bad ones.
//!
//! `py-substrate-interface` accepts a signature over `<Bytes>message</Bytes>` in place of one over the message, so Fiber
//! does, and so does this.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use schnorrkel::context::SigningContext;
use schnorrkel::{PublicKey, Signature, signing_context, verify_batch};
use sidecar_util::Hotkey;
use tokio::sync::{mpsc, oneshot};

use crate::sync::Mutex;

/// Signatures verified as one equation. Twice as many are hardly cheaper each, and all wait for the last.
pub const BATCH_MAX: usize = 64;

/// Fewer than this are cheaper one by one.
const BATCH_MIN: usize = 4;

/// Signatures waiting in one lane; who comes then waits in front of it.
const LANE: usize = 1024;

/// Decompressed keys kept: a subnet's neurons several times over. Each takes 192 bytes.
const KEYS_MAX: usize = 16 * 1024;

/// The context of every signature on the chain.
static CONTEXT: LazyLock<SigningContext> = LazyLock::new(|| signing_context(b"substrate"));

/// A signature to be verified.
#[derive(Debug, Clone)]
pub struct Statement {
    key: PublicKey,
    message: Vec<u8>,
    signature: Signature,
}

impl Statement {
    /// That a hotkey signed a message. `None` when one of them is malformed, which no signature can mend.
    pub fn new(keys: &PublicKeys, hotkey: &Hotkey, message: Vec<u8>, signature: &[u8; 64]) -> Option<Self> {
        let signature = Signature::from_bytes(signature).ok()?;
        Some(Self { key: keys.get(hotkey)?, message, signature })
    }

    /// Whether it is true.
    pub fn holds(&self) -> bool {
        self.holds_as_is() || self.holds_wrapped()
    }

    fn holds_as_is(&self) -> bool {
        self.key.verify(CONTEXT.bytes(&self.message), &self.signature).is_ok()
    }

    fn holds_wrapped(&self) -> bool {
        let wrapped = [b"<Bytes>", self.message.as_slice(), b"</Bytes>"].concat();
        self.key.verify(CONTEXT.bytes(&wrapped), &self.signature).is_ok()
    }
}

/// Which statements are true, in their order.
pub fn verify_all(statements: &[Statement]) -> Vec<bool> {
    if statements.len() >= BATCH_MIN && hold_together(statements) {
        return vec![true; statements.len()];
    }
    statements.iter().map(Statement::holds).collect()
}

fn hold_together(statements: &[Statement]) -> bool {
    let mut sorted: Vec<&Statement> = statements.iter().collect();
    // Neighbours with the same key cost one multiplication less each.
    sorted.sort_unstable_by_key(|statement| statement.key.to_bytes());
    let transcripts = sorted.iter().map(|statement| CONTEXT.bytes(&statement.message));
    let signatures: Vec<Signature> = sorted.iter().map(|statement| statement.signature).collect();
    let keys: Vec<PublicKey> = sorted.iter().map(|statement| statement.key).collect();
    verify_batch(transcripts, &signatures, &keys, true).is_ok()
}

/// Public keys as points, which takes longer to compute than a hash of the message.
#[derive(Debug, Default)]
pub struct PublicKeys {
    known: Mutex<HashMap<Hotkey, PublicKey>>,
}

impl PublicKeys {
    /// None known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The key of a hotkey; `None` when the bytes are no point of the curve.
    pub fn get(&self, hotkey: &Hotkey) -> Option<PublicKey> {
        if let Some(key) = self.known.lock().get(hotkey) {
            return Some(*key);
        }
        let key = PublicKey::from_bytes(hotkey.as_bytes()).ok()?;
        let mut known = self.known.lock();
        if known.len() >= KEYS_MAX {
            // Never with honest callers, who ask for neurons only; and all it costs is to compute them again.
            known.clear();
        }
        known.insert(*hotkey, key);
        Some(key)
    }
}

/// Verifies signatures, many together when many wait.
#[derive(Debug)]
pub struct Signatures {
    keys: PublicKeys,
    lanes: Vec<mpsc::Sender<Waiting>>,
    next: AtomicUsize,
}

type Waiting = (Statement, oneshot::Sender<bool>);

impl Signatures {
    /// Starts so many lanes, each a task that ends with this. More than there are cores are of no use.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn spawn(lanes: usize) -> Self {
        let lanes = (0..lanes.max(1)).map(|_| {
            let (tx, rx) = mpsc::channel(LANE);
            tokio::spawn(lane(rx));
            tx
        });
        Self { keys: PublicKeys::new(), lanes: lanes.collect(), next: AtomicUsize::new(0) }
    }

    /// Whether a hotkey signed a message.
    ///
    /// # Cancel safety
    /// Dropping the future is safe; the signature is verified all the same, and nobody hears of it.
    pub async fn verify(&self, hotkey: &Hotkey, message: Vec<u8>, signature: &[u8; 64]) -> bool {
        let Some(statement) = Statement::new(&self.keys, hotkey, message, signature) else { return false };
        let lane = &self.lanes[self.next.fetch_add(1, Ordering::Relaxed) % self.lanes.len()];
        let (tx, rx) = oneshot::channel();
        match lane.send((statement, tx)).await {
            Ok(()) => rx.await.unwrap_or(false),
            // The runtime is shutting down; the answer is still right.
            Err(mpsc::error::SendError((statement, _))) => statement.holds(),
        }
    }
}

async fn lane(mut waiting: mpsc::Receiver<Waiting>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let (statements, askers): (Vec<Statement>, Vec<oneshot::Sender<bool>>) = batch.drain(..).unzip();
        for (asker, holds) in askers.into_iter().zip(verify_all(&statements)) {
            // Who does not wait any more need not hear it.
            let _ = asker.send(holds);
        }
        // Lets those who got their answers go on before the next batch takes the core.
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::Sign;
    use crate::handshake::tests::key;

    fn statement(id: u8, message: &[u8], signed: &[u8]) -> Statement {
        let pair = key(id);
        Statement::new(&PublicKeys::new(), &pair.hotkey(), message.to_vec(), &pair.sign(signed)).unwrap()
    }

    #[test]
    fn a_batch_names_the_bad_ones() {
        let statements: Vec<Statement> = (0..BATCH_MAX)
            .map(|i| {
                let message = format!("message {i}");
                let signed = if i % 13 == 5 { "another" } else { &message };
                statement(u8::try_from(i % 7).unwrap(), message.as_bytes(), signed.as_bytes())
            })
            .collect();
        let expected: Vec<bool> = (0..BATCH_MAX).map(|i| i % 13 != 5).collect();
        assert_eq!(verify_all(&statements), expected);
        let good: Vec<Statement> =
            statements.into_iter().zip(&expected).filter(|(_, good)| **good).map(|(one, _)| one).collect();
        assert!(hold_together(&good), "the equation itself holds");
        assert_eq!(verify_all(&good), vec![true; good.len()]);
    }

    #[test]
    fn a_wrapped_message_is_taken_alone_and_among_others() {
        let wrapped = statement(1, b"message", b"<Bytes>message</Bytes>");
        assert!(wrapped.holds());
        let statements: Vec<Statement> =
            (0..8).map(|id| if id == 3 { wrapped.clone() } else { statement(id, b"m", b"m") }).collect();
        assert_eq!(verify_all(&statements), vec![true; 8]);
    }

    #[test]
    fn the_signature_of_one_is_not_the_signature_of_another() {
        let (one, other) = (key(1), key(2));
        let statement = Statement::new(&PublicKeys::new(), &other.hotkey(), b"m".to_vec(), &one.sign(b"m")).unwrap();
        assert!(!statement.holds());
    }

    #[test]
    fn bytes_that_are_no_key_or_no_signature_are_refused() {
        let keys = PublicKeys::new();
        let pair = key(1);
        assert!(Statement::new(&keys, &[0xff; 32].into(), vec![], &pair.sign(b"")).is_none());
        assert!(Statement::new(&keys, &pair.hotkey(), vec![], &[0; 64]).is_none());
        assert!(Statement::new(&keys, &pair.hotkey(), vec![], &[0xff; 64]).is_none());
    }

    #[tokio::test]
    async fn lanes_answer_everybody_with_their_own_answer() {
        let signatures = Signatures::spawn(2);
        let asked = (0..300_u16).map(|i| {
            let (pair, message) = (key(1), i.to_string());
            let signed = if i % 10 == 0 { "another".to_owned() } else { message.clone() };
            let signature = pair.sign(signed.as_bytes());
            let signatures = &signatures;
            async move { signatures.verify(&pair.hotkey(), message.into_bytes(), &signature).await }
        });
        let answers = futures::future::join_all(asked).await;
        for (i, holds) in answers.into_iter().enumerate() {
            assert_eq!(holds, i % 10 != 0, "{i}");
        }
    }
}
