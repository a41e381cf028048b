//! What to do next with an intent: pure, from the journal's entry and from what the chain says now.

use super::journal::{Attempt, Fate};

/// What the chain says about an open intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Number of the best block, all blocks up to which were searched for every attempt, in vain.
    pub(crate) best: u64,
    /// Number of the last final block.
    pub(crate) finalized: u64,
    /// The account's nonce at the best block.
    pub(crate) nonce_best: u64,
    /// The account's nonce at the last final block.
    pub(crate) nonce_final: u64,
    /// Whether the last attempt was sent over the connection at hand.
    pub(crate) sent_here: bool,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing that was signed can get into a block any more: sign with the next free nonce.
    SignFresh,
    /// Something that was signed may still get into a block: sign with the same nonce, so that at most one does.
    SignAgain {
        /// The nonce.
        nonce: u64,
    },
    /// Send the last attempt, for the first time or once more.
    Send,
    /// See what the next block brings.
    Wait,
}

/// Decides. None of the attempts is in a block of the chain as it is now.
pub(crate) fn next(attempts: &[Attempt], seen: Seen) -> Next {
    // In a pool, as far as is known. What was refused or never sent cannot be in one.
    let mut out = attempts.iter().filter(|attempt| attempt.fate == Fate::Sent && !is_dead(attempt, seen));
    let nonce_out = out.next_back().map(|attempt| attempt.nonce);
    let Some(last) = attempts.last() else { return Next::SignFresh };
    let fits = last.nonce >= seen.nonce_best && is_valid_next(last, seen);
    match (last.fate, nonce_out) {
        // Signed before a kill, and never sent. Other attempts that are out have its nonce.
        (Fate::Signed, _) if fits => Next::Send,
        (Fate::Sent, Some(_)) if fits && !seen.sent_here => Next::Send,
        (Fate::Sent, Some(_)) if fits => Next::Wait,
        // The era is over, or the runtime did not want the last one, and an earlier one may still get in: on a fork.
        (_, Some(nonce)) if nonce >= seen.nonce_best => Next::SignAgain { nonce },
        // Another extrinsic has the nonce. It may be ours again after a reorganisation, so only finality settles it.
        (_, Some(_)) => Next::Wait,
        (_, None) => Next::SignFresh,
    }
}

/// Whether an attempt can never be included, on any fork that can still win.
fn is_dead(attempt: &Attempt, seen: Seen) -> bool {
    // `death` is the first block that does not take it. The nonce is used up when the final state is past it.
    seen.finalized.saturating_add(1) >= attempt.death || seen.nonce_final > attempt.nonce
}

/// Whether the block after the best one could include it.
fn is_valid_next(attempt: &Attempt, seen: Seen) -> bool {
    seen.best.saturating_add(1) < attempt.death
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sidecar_util::BlockHash;

    use super::*;
    use crate::extrinsics::journal::ExtrinsicHash;

    fn attempt(nonce: u64, birth: u64, fate: Fate) -> Attempt {
        let hash = ExtrinsicHash(BlockHash([0; 32]));
        Attempt { nonce, birth, death: birth + 64, hash, bytes: String::new(), fate }
    }

    fn seen(best: u64, finalized: u64, nonce_best: u64, nonce_final: u64) -> Seen {
        Seen { best, finalized, nonce_best, nonce_final, sent_here: true }
    }

    #[test]
    fn nothing_signed_means_sign() {
        assert_eq!(next(&[], seen(10, 8, 3, 3)), Next::SignFresh);
    }

    #[test]
    fn what_was_signed_and_never_sent_is_sent() {
        assert_eq!(next(&[attempt(3, 10, Fate::Signed)], seen(12, 10, 3, 3)), Next::Send);
        // Or signed anew when it waited too long on disk.
        assert_eq!(next(&[attempt(3, 10, Fate::Signed)], seen(80, 78, 3, 3)), Next::SignFresh);
        assert_eq!(next(&[attempt(3, 10, Fate::Signed)], seen(12, 10, 4, 3)), Next::SignFresh);
    }

    #[test]
    fn what_was_sent_is_waited_for_and_sent_again_over_a_new_connection() {
        let sent = [attempt(3, 10, Fate::Sent)];
        assert_eq!(next(&sent, seen(12, 10, 3, 3)), Next::Wait);
        assert_eq!(next(&sent, Seen { sent_here: false, ..seen(12, 10, 3, 3) }), Next::Send);
    }

    #[test]
    fn after_its_era_it_is_signed_again_with_the_same_nonce_until_that_is_final() {
        let sent = [attempt(3, 10, Fate::Sent)];
        assert_eq!(next(&sent, seen(72, 70, 3, 3)), Next::Wait);
        assert_eq!(next(&sent, seen(73, 71, 3, 3)), Next::SignAgain { nonce: 3 });
        assert_eq!(next(&sent, seen(75, 73, 3, 3)), Next::SignFresh);
    }

    #[test]
    fn a_nonce_that_somebody_else_used_is_left_when_that_is_final() {
        let sent = [attempt(3, 10, Fate::Sent)];
        assert_eq!(next(&sent, seen(12, 10, 4, 3)), Next::Wait);
        assert_eq!(next(&sent, seen(14, 12, 4, 4)), Next::SignFresh);
    }

    #[test]
    fn a_refused_one_is_signed_again_at_once() {
        assert_eq!(next(&[attempt(3, 10, Fate::Refused)], seen(12, 10, 3, 3)), Next::SignFresh);
        let both = [attempt(3, 10, Fate::Sent), attempt(3, 20, Fate::Refused)];
        assert_eq!(next(&both, seen(22, 20, 3, 3)), Next::SignAgain { nonce: 3 });
        assert_eq!(next(&both, seen(22, 20, 4, 3)), Next::Wait);
    }

    proptest! {
        /// The one property that matters: as long as anything that is out can get into a block, nothing is signed with
        /// another nonce.
        #[test]
        fn never_two_nonces_at_once(
            fates in prop::collection::vec((0_u64..6, 0_u64..100, 0_u8..3), 0..5),
            best in 0_u64..200, lag in 0_u64..20, nonce_final in 0_u64..6, ahead in 0_u64..3, sent_here: bool,
        ) {
            let attempts: Vec<Attempt> = fates
                .into_iter()
                .map(|(nonce, birth, fate)| attempt(nonce, birth, [Fate::Signed, Fate::Sent, Fate::Refused][usize::from(fate)]))
                .collect();
            let seen = Seen {
                best, finalized: best.saturating_sub(lag), nonce_best: nonce_final + ahead, nonce_final, sent_here,
            };
            let out: Vec<&Attempt> =
                attempts.iter().filter(|attempt| attempt.fate == Fate::Sent && !is_dead(attempt, seen)).collect();
            match next(&attempts, seen) {
                Next::SignFresh => prop_assert!(out.is_empty()),
                Next::SignAgain { nonce } => prop_assert!(out.iter().any(|attempt| attempt.nonce == nonce)),
                Next::Send | Next::Wait => {}
            }
        }
    }
}
