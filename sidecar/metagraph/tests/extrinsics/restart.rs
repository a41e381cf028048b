//! The process is killed right after each step, and another one goes on from the journal.

use std::sync::Arc;

use serde_json::json;
use sidecar_metagraph::extrinsics::{OpenGate, Probe, Step, SubmitConfig, SubmitError, Submitter};

use crate::lab::{Lab, alice, intent, set_weights, submit};

/// Ends the submitter after a step.
struct KillAfter(Step);

impl Probe for KillAfter {
    fn kill_after(&self, step: Step) -> bool {
        step == self.0
    }
}

const STEPS: [Step; 7] =
    [Step::Accepted, Step::Signed, Step::Sending, Step::Sent, Step::Seen, Step::Included, Step::Finalized];

async fn killed_after(lab: &Lab, step: Step, key: &str) {
    let config = SubmitConfig { probe: Some(Arc::new(KillAfter(step))), ..lab.config() };
    let submitter = Submitter::spawn(config, alice(), Arc::new(OpenGate)).unwrap();
    let error = submitter.handle().submit(intent(key, set_weights(&[1], &[1]))).await.unwrap_err();
    assert!(matches!(error, SubmitError::Closed), "{step:?}: {error}");
    submitter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_after_any_step_leads_to_exactly_one_submission() {
    let lab = Lab::start(&json!({}), &[]);
    for (i, step) in STEPS.into_iter().enumerate() {
        let key = format!("{step:?}");
        killed_after(&lab, step, &key).await;
        let submitter = lab.submitter();
        let receipt = submit(&submitter, &key, set_weights(&[1], &[1])).await.unwrap();
        assert!(receipt.finalized);
        submitter.shutdown().await;
        assert_eq!(lab.count("SubtensorModule", "WeightsSet").await, i + 1, "{step:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_and_a_long_pause_do_not_lead_to_a_second_submission() {
    let lab = Lab::start(&json!({}), &[]);
    for (i, step) in [Step::Sending, Step::Sent, Step::Included].into_iter().enumerate() {
        let key = format!("{step:?}");
        killed_after(&lab, step, &key).await;
        // The era passes before anybody looks.
        lab.blocks(80);
        let submitter = lab.submitter();
        submit(&submitter, &key, set_weights(&[1], &[1])).await.unwrap();
        submitter.shutdown().await;
        assert_eq!(lab.count("SubtensorModule", "WeightsSet").await, i + 1, "{step:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_asks_for_again_is_followed_and_not_signed_anew() {
    let lab = Lab::start(&json!({}), &[]);
    killed_after(&lab, Step::Signed, "a").await;
    lab.blocks(80);
    let submitter = lab.submitter();
    // Another intent keeps it busy for some blocks.
    submit(&submitter, "b", set_weights(&[2], &[1])).await.unwrap();
    submitter.shutdown().await;
    assert_eq!(lab.count("SubtensorModule", "WeightsSet").await, 1);
    assert_eq!(lab.weights(1).await, [(2, 65535)]);
}
