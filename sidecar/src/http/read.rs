//! What is known: status, metagraph, validators, and whether a hotkey is one of them.

use std::sync::Arc;

use serde::Serialize;
use sidecar_peer::Entry;
use sidecar_util::http::{ChainStatus, NodeKind, StatusBody, ValidatorBody, ValidatorsBody, VerifyBody};
use sidecar_util::{Hotkey, Metagraph, ValueError};
use utoipa::ToSchema;
use warp::Filter;
use warp::reply::Response;

use super::ask::{Asked, asked};
use super::{
    Problem, Served, held, json, mark_gzipped, not_modified, outcome, query, tagged, typed, unread, with, with_tag,
};
use crate::app::App;

/// `GET /v1/status`, `/v1/metagraph`, `/v1/validators`, `/v1/validators/{hotkey}/verify`.
pub(crate) fn routes(app: &Arc<App>) -> Vec<Served> {
    let get = || warp::get().and(with(app));
    let verify = warp::path!("v1" / "validators" / String / "verify")
        .and(get())
        .then(|hotkey: String, app: Arc<App>| async move { outcome(verify(&app, &hotkey).await) });
    vec![
        ("/v1/status", get().map(|app: Arc<App>| json(&status(&app))).boxed()),
        (
            "/v1/metagraph",
            get().and(asked()).then(|app: Arc<App>, asked: Asked| async move { metagraph(&app, &asked).await }).boxed(),
        ),
        ("/v1/validators", get().and(asked()).map(|app: Arc<App>, asked: Asked| validators(&app, &asked)).boxed()),
        ("/v1/validators/{hotkey}/verify", verify.boxed()),
    ]
}

/// `GET /v1/status`: the shared body, and what only people look at.
#[derive(Serialize, ToSchema)]
pub(crate) struct Status {
    #[serde(flatten)]
    body: StatusBody,
    /// Why the network file cannot be used, when the last good one is in force instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    network_file_error: Option<String>,
}

/// This sidecar, its node, its chain and its group
#[utoipa::path(
    get,
    path = "/v1/status",
    tag = "subnet",
    responses((status = 200, description = "Answered also while the chain is down", body = Status))
)]
pub(crate) fn status(app: &App) -> Status {
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

/// The subnet at the last block that was read
#[utoipa::path(
    get,
    path = "/v1/metagraph",
    tag = "subnet",
    responses(
        (status = 200, description = "Every neuron; `/v1/status` says how old that is", body = Metagraph),
        (status = 304, description = "The same as what the client holds"),
        (status = 503, description = "`urn:mycelium:chain-unavailable`: the chain was not read yet"),
    )
)]
pub(crate) async fn metagraph(app: &App, asked: &Asked) -> Response {
    let metagraph = match held(app) {
        Ok(metagraph) => metagraph,
        Err(problem) => return problem.into_response(),
    };
    let etag = format!("W/\"{}\"", metagraph.block_hash);
    if asked.holds(&etag) {
        return with_tag(not_modified(), &etag);
    }
    match app.recent.metagraph(&metagraph, asked.gzip).await {
        Ok(bytes) => {
            let mut response = typed(http::StatusCode::OK, "application/json", bytes);
            if asked.gzip {
                mark_gzipped(response.headers_mut());
            }
            with_tag(response, &etag)
        }
        Err(error) => Problem::Internal(error).into_response(),
    }
}

/// The validators in this sidecar's registry
#[utoipa::path(
    get,
    path = "/v1/validators",
    tag = "subnet",
    responses(
        (status = 200, description = "In the order of uids", body = ValidatorsBody),
        (status = 304, description = "The same as what the client holds"),
        (status = 503, description = "`urn:mycelium:chain-unavailable`: the chain was not read yet"),
    )
)]
pub(crate) fn validators(app: &App, asked: &Asked) -> Response {
    // Read before the entries: what changes meanwhile has another tag the next time.
    let sequence = app.registry.seq();
    let (block, entries) = app.registry.list(NodeKind::Validator);
    let Some(block) = block else { return unread(app.chain.view().problem.as_ref()).into_response() };
    let etag = format!("W/\"{block}-{sequence:x}\"");
    tagged(asked, &etag, || ValidatorsBody { block, validators: entries.iter().map(validator).collect() })
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

/// Whether a hotkey is a validator of this subnet with enough stake
///
/// Answered from what is held, or from the chain when that is older than the Network allows.
#[utoipa::path(
    get,
    path = "/v1/validators/{hotkey}/verify",
    tag = "subnet",
    params(("hotkey" = inline(Hotkey), Path, description = "SS58 address of the hotkey")),
    responses(
        (status = 200, description = "Whether it is, and why", body = VerifyBody),
        (status = 400, description = "`urn:mycelium:invalid-hotkey`: no SS58 address of this chain"),
        (status = 503, description = "`urn:mycelium:chain-unavailable`: what is held is too old, and the chain cannot be read"),
    )
)]
pub(crate) async fn verify(app: &App, hotkey: &str) -> Result<VerifyBody, Problem> {
    let hotkey = parse_hotkey(hotkey).map_err(Problem::InvalidHotkey)?;
    let answer = app.verifier.verify(&hotkey).await;
    match &answer {
        Ok(body) => app.metrics.verification(&body.reason, body.cached),
        Err(error) => app.metrics.verification(error.reason, false),
    }
    Ok(answer?)
}

fn parse_hotkey(segment: &str) -> Result<Hotkey, ValueError> {
    query::decode_segment("hotkey", segment)?.parse()
}
