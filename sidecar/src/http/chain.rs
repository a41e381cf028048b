//! What is read from the chain for each request: weights, bonds, hyperparameters, identities, balances, now or at a block.

use std::sync::Arc;

use sidecar_util::{Coldkey, Uid, ValueError};
use utoipa::{IntoParams, IntoResponses};
use warp::Filter;
use warp::reply::Response;

use super::ask::{Asked, asked};
use super::query::{Pairs, Refusals, Take, decode_segment};
use super::{Problem, Served, outcome, with};
use crate::app::App;
use crate::reads::{BalanceBody, HyperparametersBody, IdentitiesBody, Matrix, MatrixAsked, MatrixBody, ReadFailure};

/// Coldkeys of one request: each is a call to the chain.
const COLDKEYS_MAX: usize = 16;

/// `GET /v1/weights`, `/v1/bonds`, `/v1/hyperparameters`, `/v1/identities`, `/v1/balances/{coldkey}`.
pub(crate) fn routes(app: &Arc<App>) -> Vec<Served> {
    let get = || warp::get().and(with(app)).and(asked());
    let balance_of = warp::path!("v1" / "balances" / String)
        .and(get())
        .then(|coldkey: String, app: Arc<App>, asked: Asked| async move { balance(&app, &asked, &coldkey).await });
    vec![
        ("/v1/weights", get().then(|app: Arc<App>, asked: Asked| async move { weights(&app, &asked).await }).boxed()),
        ("/v1/bonds", get().then(|app: Arc<App>, asked: Asked| async move { bonds(&app, &asked).await }).boxed()),
        (
            "/v1/hyperparameters",
            get().then(|app: Arc<App>, asked: Asked| async move { hyperparameters(&app, &asked).await }).boxed(),
        ),
        (
            "/v1/identities",
            get().then(|app: Arc<App>, asked: Asked| async move { identities(&app, &asked).await }).boxed(),
        ),
        ("/v1/balances/{coldkey}", balance_of.boxed()),
    ]
}

/// Parameters of `GET /v1/weights` and `/v1/bonds`.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `matrix_asked` reads, for OpenAPI")]
struct MatrixParameters {
    /// Mechanism of the subnet
    #[param(default = 0, minimum = 0, maximum = 255)]
    mechanism: Option<u8>,
    /// Only the row of this neuron
    #[param(inline)]
    uid: Option<Uid>,
    /// At this block instead of the last final one
    #[param(minimum = 1)]
    block: Option<u64>,
}

/// Parameters of `GET /v1/identities`.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `identities` reads, for OpenAPI")]
struct IdentityParameters {
    /// Those of these coldkeys as well, separated by commas
    #[param(inline, style = Form, explode = false, min_items = 1, max_items = 16)]
    coldkey: Option<Vec<Coldkey>>,
    /// At this block instead of the last final one
    #[param(minimum = 1)]
    block: Option<u64>,
}

/// Parameters of what is read at a block.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `block_asked` reads, for OpenAPI")]
struct BlockParameter {
    /// At this block instead of the last final one
    #[param(minimum = 1)]
    block: Option<u64>,
}

/// Why something is not read.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes what a `ReadFailure` becomes, for OpenAPI")]
enum ReadRefusals {
    /// `urn:mycelium:invalid-parameter`: every one that cannot be used
    #[response(status = 400)]
    Invalid,
    /// `urn:mycelium:absent`: no such block, none that is kept, or nothing of the kind at it
    #[response(status = 404)]
    Absent,
    /// `urn:mycelium:chain-unavailable`: the chain cannot be read
    #[response(status = 503)]
    Unavailable,
}

impl From<ReadFailure> for Problem {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Absent(what) => Self::Absent(what),
            ReadFailure::Chain { reason, detail } => Self::Chain { reason, detail },
        }
    }
}

/// Reads a query of which every parameter is taken by `read`.
fn parsed<T>(asked: &Asked, read: impl FnOnce(&mut Take<'_>) -> T) -> Result<T, Problem> {
    let mut refusals = Refusals::default();
    let pairs = Pairs::parse(asked.query.as_deref().unwrap_or_default(), &mut refusals);
    let mut take = pairs.take(&mut refusals);
    let value = read(&mut take);
    take.end();
    refusals.into_result().map_err(Problem::InvalidParameters)?;
    Ok(value)
}

fn take_block(take: &mut Take<'_>) -> Option<u64> {
    take.one("block", |value| {
        value.parse().ok().filter(|block| *block > 0).ok_or_else(|| "is not a number of a block, 1 or above".to_owned())
    })
}

fn matrix_asked(asked: &Asked, matrix: Matrix) -> Result<MatrixAsked, Problem> {
    parsed(asked, |take| MatrixAsked {
        matrix,
        mechanism: take
            .one("mechanism", |value| value.parse().map_err(|_| "is not a whole number from 0 to 255".to_owned()))
            .unwrap_or_default(),
        uid: take.one("uid", |value| value.parse().map_err(|error: ValueError| error.expected)),
        block: take_block(take),
    })
}

/// The weights that validators set
#[utoipa::path(
    get,
    path = "/v1/weights",
    tag = "chain",
    params(MatrixParameters),
    responses(
        (status = 200, description = "One row for each neuron that set weights", body = MatrixBody),
        ReadRefusals,
    )
)]
pub(crate) async fn weights(app: &App, asked: &Asked) -> Response {
    matrix(app, asked, Matrix::Weights).await
}

/// The bonds between validators and miners
#[utoipa::path(
    get,
    path = "/v1/bonds",
    tag = "chain",
    params(MatrixParameters),
    responses(
        (status = 200, description = "One row for each neuron that has bonds", body = MatrixBody),
        ReadRefusals,
    )
)]
pub(crate) async fn bonds(app: &App, asked: &Asked) -> Response {
    matrix(app, asked, Matrix::Bonds).await
}

async fn matrix(app: &App, asked: &Asked, matrix: Matrix) -> Response {
    match matrix_asked(asked, matrix) {
        Ok(wanted) => outcome(app.reads.matrix(wanted).await.map_err(Problem::from)),
        Err(problem) => problem.into_response(),
    }
}

/// The hyperparameters of the subnet
#[utoipa::path(
    get,
    path = "/v1/hyperparameters",
    tag = "chain",
    params(BlockParameter),
    responses(
        (status = 200, description = "All that the chain's runtime names", body = HyperparametersBody),
        ReadRefusals,
    )
)]
pub(crate) async fn hyperparameters(app: &App, asked: &Asked) -> Response {
    match parsed(asked, take_block) {
        Ok(block) => outcome(app.reads.hyperparameters(block).await.map_err(Problem::from)),
        Err(problem) => problem.into_response(),
    }
}

/// The identities of the subnet and of coldkeys
#[utoipa::path(
    get,
    path = "/v1/identities",
    tag = "chain",
    params(IdentityParameters),
    responses(
        (status = 200, description = "Those that said who they are", body = IdentitiesBody),
        ReadRefusals,
    )
)]
pub(crate) async fn identities(app: &App, asked: &Asked) -> Response {
    let wanted = parsed(asked, |take| {
        let read = |value: &str| value.parse::<Coldkey>().map_err(|error| error.expected);
        (take.list("coldkey", COLDKEYS_MAX, read).unwrap_or_default(), take_block(take))
    });
    match wanted {
        Ok((coldkeys, block)) => outcome(app.reads.identities(coldkeys, block).await.map_err(Problem::from)),
        Err(problem) => problem.into_response(),
    }
}

/// The balance of a coldkey
#[utoipa::path(
    get,
    path = "/v1/balances/{coldkey}",
    tag = "chain",
    params(("coldkey" = inline(Coldkey), Path, description = "SS58 address of the coldkey"), BlockParameter),
    responses(
        (status = 200, description = "What it holds, stake not included", body = BalanceBody),
        ReadRefusals,
    )
)]
pub(crate) async fn balance(app: &App, asked: &Asked, coldkey: &str) -> Response {
    let wanted = || -> Result<_, Problem> {
        let coldkey: Coldkey =
            decode_segment("coldkey", coldkey)?.parse::<Coldkey>().map_err(|error| error.of_field("coldkey"))?;
        Ok((coldkey, parsed(asked, take_block)?))
    };
    match wanted() {
        Ok((coldkey, block)) => outcome(app.reads.balance(coldkey, block).await.map_err(Problem::from)),
        Err(problem) => problem.into_response(),
    }
}
