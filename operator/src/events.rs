//! Events: every decision and every change of a condition, told once.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_runtime::events::{Event, EventType, Recorder};

use crds::v1alpha1::conditions as c;

use crate::error::chain;

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    warning: bool,
    reason: String,
    text: String,
}

/// Reason of the event that tells of a deleted pod.
pub(crate) const POD_DELETED: &str = "PodDeleted";

/// The API server refuses longer notes.
const NOTE_LENGTH_MAX: usize = 1024;

impl Note {
    pub(crate) fn normal(reason: &str, text: String) -> Self {
        Self { warning: false, reason: reason.into(), text }
    }

    /// Whether this tells of a pod that was deleted to make place for another.
    pub(crate) fn is_pod_deletion(&self) -> bool {
        self.reason == POD_DELETED
    }

    pub(crate) fn warning(reason: &str, text: String) -> Self {
        Self { warning: true, reason: reason.into(), text }
    }
}

/// Publishes notes about an object. An event that cannot be written is logged and forgotten: status has the same facts.
pub(crate) async fn publish(recorder: &Recorder, regarding: &ObjectReference, notes: &[Note]) {
    for note in notes {
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason.clone(),
            note: Some(note.text.chars().take(NOTE_LENGTH_MAX).collect()),
            action: "Reconcile".into(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, regarding).await {
            tracing::warn!(error = chain(&error), reason = note.reason, "event not written");
        }
    }
}

/// Notes for the conditions that changed: what turned bad warns, what turned good says so.
pub(crate) fn of_conditions(before: &[Condition], after: &[Condition]) -> Vec<Note> {
    let mut notes = Vec::new();
    for condition in after {
        let old = before.iter().find(|old| old.type_ == condition.type_);
        let same = old.is_some_and(|old| old.status == condition.status && old.reason == condition.reason);
        // A first visit with nothing wrong is no news, and an unknown is none either.
        if same || condition.status == "Unknown" || (old.is_none() && !is_bad(condition)) {
            continue;
        }
        if is_bad(condition) {
            notes.push(Note::warning(&condition.reason, format!("{}: {}", condition.type_, condition.message)));
        } else if old.is_some_and(is_bad) {
            notes.push(Note::normal(
                &format!("{}Restored", condition.type_),
                format!("{}: {}", condition.type_, condition.message),
            ));
        }
    }
    notes
}

/// Whether somebody should look: most conditions are good when true, two are when false.
fn is_bad(condition: &Condition) -> bool {
    match condition.type_.as_str() {
        c::INVALID_SPEC => condition.status == "True",
        // A pause was asked for; Ready repeats what another condition said first; a learner or an unexposed axon is as the
        // user wanted it.
        c::PAUSED | c::READY | c::VOTER | c::AXON_PUBLISHED | c::UP_TO_DATE | c::STATE_DURABLE => false,
        _ => condition.status == "False",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::condition;

    #[test]
    fn only_what_changed_is_told() {
        let bad = condition(c::STAKE_SUFFICIENT, "False", "BelowMinimumStake");
        let good = condition(c::STAKE_SUFFICIENT, "True", "AsExpected");
        let told = |before: &[Condition], after: &Condition| of_conditions(before, std::slice::from_ref(after)).len();
        assert_eq!(told(&[], &good), 0);
        assert_eq!(told(&[], &bad), 1);
        assert_eq!(told(std::slice::from_ref(&bad), &bad), 0);
        assert_eq!(told(std::slice::from_ref(&bad), &good), 1);
    }
}
