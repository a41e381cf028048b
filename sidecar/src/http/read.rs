//! What is known: status, metagraph, validators, and whether a hotkey is one of them.

use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use sidecar_metagraph::ChainProblem;
use sidecar_peer::Entry;
use sidecar_util::Hotkey;
use sidecar_util::http::{ChainStatus, NodeKind, StatusBody, ValidatorBody, ValidatorsBody, VerifyBody};
use warp::Filter;
use warp::reply::Response;

use super::{Problem, Routes, json, outcome, with};
use crate::app::App;

/// `GET /v1/status`, `/v1/metagraph`, `/v1/validators`, `/v1/validators/{hotkey}/verify`.
pub(crate) fn routes(app: &Arc<App>) -> Routes {
    let status = warp::path!("v1" / "status").and(warp::get()).and(with(app)).map(|app: Arc<App>| json(&status(&app)));
    let metagraph = warp::path!("v1" / "metagraph")
        .and(warp::get())
        .and(with(app))
        .and(warp::header::optional::<String>("if-none-match"))
        .map(|app: Arc<App>, known: Option<String>| metagraph(&app, known.as_deref()));
    let validators =
        warp::path!("v1" / "validators").and(warp::get()).and(with(app)).map(|app: Arc<App>| outcome(validators(&app)));
    let verify = warp::path!("v1" / "validators" / String / "verify")
        .and(warp::get())
        .and(with(app))
        .then(|hotkey: String, app: Arc<App>| async move { outcome(verify(&app, &hotkey).await) });
    status.or(metagraph).unify().or(validators).unify().or(verify).unify().boxed()
}

/// `GET /v1/status`: the shared body, and what only people look at.
#[derive(Serialize)]
struct Status {
    #[serde(flatten)]
    body: StatusBody,
    /// Why the network file cannot be used, when the last good one is in force instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    network_file_error: Option<String>,
}

fn status(app: &App) -> Status {
    let (network, view) = (app.file.network.borrow().clone(), app.chain.view());
    let held = view.metagraph.as_ref();
    let chain = ChainStatus {
        endpoint: view.endpoint.clone(),
        synced: view.is_synced(),
        error: view.problem.as_ref().map(|problem| format!("{}: {problem}", problem.reason())),
        genesis_hash: view.genesis_hash,
        spec_version: view.spec_version,
        block: held.map(|metagraph| metagraph.block),
        age_s: view.age().map(|age| age.as_secs()),
    };
    let group = app.group.borrow().clone();
    let body = StatusBody {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        network: network.network.clone(),
        kind: app.kind,
        hotkey: app.hotkey,
        netuid: network.netuid,
        chain,
        neuron: held.and_then(|metagraph| metagraph.by_hotkey(&app.hotkey)).cloned(),
        registry: app.registry.status(),
        group: group.map(|group| group.status()),
        signer: app.signer.get().map(|signer| signer.status()),
    };
    Status { body, network_file_error: app.file.error.borrow().as_ref().map(ToString::to_string) }
}

fn metagraph(app: &App, known: Option<&str>) -> Response {
    let view = app.chain.view();
    let Some(metagraph) = &view.metagraph else { return unread(view.problem.as_ref()).into_response() };
    let etag = format!("\"{}\"", metagraph.block_hash);
    let unchanged = known.is_some_and(|known| known.split(',').any(|one| one.trim() == etag));
    let mut response = if unchanged { Response::default() } else { json(&**metagraph) };
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

fn validators(app: &App) -> Result<ValidatorsBody, Problem> {
    let (block, entries) = app.registry.list(NodeKind::Validator);
    let block = block.ok_or_else(|| unread(app.chain.view().problem.as_ref()))?;
    Ok(ValidatorsBody { block, validators: entries.iter().map(validator).collect() })
}

fn validator(entry: &Entry) -> ValidatorBody {
    ValidatorBody {
        hotkey: entry.hotkey,
        uid: entry.uid,
        state: entry.state,
        reason: entry.reason.to_owned(),
        stake: entry.stake,
        validator_permit: entry.validator_permit,
        block: entry.block,
    }
}

async fn verify(app: &App, hotkey: &str) -> Result<VerifyBody, Problem> {
    let hotkey: Hotkey = hotkey.parse().map_err(Problem::InvalidHotkey)?;
    let answer = app.verifier.verify(&hotkey).await;
    match &answer {
        Ok(body) => app.metrics.verification(&body.reason, body.cached),
        Err(error) => app.metrics.verification(error.reason, false),
    }
    Ok(answer?)
}

/// Nothing was read from the chain yet.
fn unread(problem: Option<&ChainProblem>) -> Problem {
    let problem = problem.cloned().unwrap_or(ChainProblem::Connecting);
    Problem::Chain { reason: problem.reason(), detail: problem.to_string() }
}
