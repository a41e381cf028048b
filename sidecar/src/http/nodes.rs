//! `GET /v1/nodes` and `/v1/nodes/{id}`: the neurons of the subnet with their standing in the registry, filtered, sorted and
//! in pages.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use sidecar_util::http::{EntryState, NodeBody, NodeKind, NodesBody};
use sidecar_util::{BlockHash, Coldkey, Hotkey, Neuron, Score, Tao, Uid, ValueError};
use utoipa::{IntoParams, ToSchema};
use warp::Filter;
use warp::reply::Response;

use super::ask::{Asked, asked};
use super::query::{Pairs, Refusals};
use super::recent::{Moment, Standing};
use super::{Problem, Served, held, tagged, with};
use crate::app::App;

/// Nodes of one page, when nothing is said.
const LIMIT_DEFAULT: usize = 256;

/// Largest page: a whole subnet of today.
const LIMIT_MAX: usize = 1024;

/// Hotkeys of one request: as many as a path may be long.
const HOTKEYS_MAX: usize = 128;

/// Uids of one request.
const UIDS_MAX: usize = 512;

/// `GET /v1/nodes`, `/v1/nodes/{id}`.
pub(crate) fn routes(app: &Arc<App>) -> Vec<Served> {
    let list_nodes = warp::get().and(with(app)).and(asked()).map(|app: Arc<App>, asked: Asked| list(&app, &asked));
    let one_node = warp::path!("v1" / "nodes" / String)
        .and(warp::get())
        .and(with(app))
        .and(asked())
        .map(|id: String, app: Arc<App>, asked: Asked| one(&app, &asked, &id));
    vec![("/v1/nodes", list_nodes.boxed()), ("/v1/nodes/{id}", one_node.boxed())]
}

/// By what nodes are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sort {
    /// In the order of slots.
    #[default]
    Uid,
    /// By total stake.
    Stake,
    /// By incentive.
    Incentive,
    /// By vtrust.
    Trust,
}

/// Parameters of `GET /v1/nodes`. What is said of several parameters has to be true of a node at once.
#[derive(Debug, Clone, Default, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `Query` is read from, for OpenAPI")]
struct Parameters {
    /// Only validators, or only miners
    #[param(inline)]
    kind: Option<NodeKind>,
    /// Only those in this state of the registry
    #[param(inline)]
    state: Option<EntryState>,
    /// Least total stake
    #[param(inline)]
    min_stake: Option<Tao>,
    /// Largest total stake
    #[param(inline)]
    max_stake: Option<Tao>,
    /// Whether the chain gave a validator permit
    permit: Option<bool>,
    /// Least vtrust
    #[param(minimum = 0, maximum = 1)]
    min_trust: Option<f64>,
    /// Largest vtrust
    #[param(minimum = 0, maximum = 1)]
    max_trust: Option<f64>,
    /// Least incentive
    #[param(minimum = 0, maximum = 1)]
    min_incentive: Option<f64>,
    /// Largest incentive
    #[param(minimum = 0, maximum = 1)]
    max_incentive: Option<f64>,
    /// Whether its weights are recent enough to count
    active: Option<bool>,
    /// Whether something took a connection at its axon when this sidecar last tried; a node is neither while its present
    /// address was not tried: it has none, or one that is not public, or this sidecar does not probe nodes of its kind
    reachable: Option<bool>,
    /// Only those of this owner
    #[param(inline)]
    coldkey: Option<Coldkey>,
    /// Only these hotkeys, separated by commas
    #[param(inline, style = Form, explode = false, min_items = 1, max_items = 128)]
    hotkey: Option<Vec<Hotkey>>,
    /// Only these slots, separated by commas
    #[param(inline, style = Form, explode = false, min_items = 1, max_items = 512)]
    uid: Option<Vec<Uid>>,
    /// Only those that set weights within so many blocks
    #[param(minimum = 0, maximum = 2_147_483_647)]
    updated_within: Option<u64>,
    /// By what the list is sorted
    #[param(inline)]
    sort: Option<Sort>,
    /// Whether the largest comes first
    desc: Option<bool>,
    /// Nodes on one page
    #[param(minimum = 1, maximum = 1024, default = 256)]
    limit: Option<u16>,
    /// `next` of the page before, with the other parameters as they were
    #[param(pattern = "^[0-9a-f]{112}$")]
    cursor: Option<String>,
}

/// What was asked for, checked.
#[derive(Debug, Default)]
struct Query {
    filter: NodeFilter,
    sort: Sort,
    descending: bool,
    limit: usize,
    cursor: Option<Cursor>,
    /// Of everything above but `limit` and `cursor`: a cursor is of one list.
    fingerprint: [u8; Cursor::FINGERPRINT],
}

#[derive(Debug, Default)]
struct NodeFilter {
    kind: Option<NodeKind>,
    state: Option<EntryState>,
    stake: Range<Tao>,
    permit: Option<bool>,
    trust: Range<Score>,
    incentive: Range<Score>,
    active: Option<bool>,
    reachable: Option<bool>,
    coldkey: Option<Coldkey>,
    hotkey: Option<BTreeSet<Hotkey>>,
    uid: Option<BTreeSet<Uid>>,
    updated_within: Option<u64>,
}

/// From the one to the other, both included; `None` is no limit.
#[derive(Debug, Default)]
struct Range<T> {
    min: Option<T>,
    max: Option<T>,
}

impl<T: Copy + Ord> Range<T> {
    fn has(&self, value: T) -> bool {
        self.min.is_none_or(|min| min <= value) && self.max.is_none_or(|max| value <= max)
    }

    /// Refuses a range that holds nothing.
    fn check(&self, name: &str, pairs: &Pairs, refusals: &mut Refusals) {
        if let (Some(min), Some(max)) = (self.min, self.max)
            && min > max
        {
            let field = format!("min_{name}");
            let value = pairs.get(&field).unwrap_or_default();
            refusals.add(ValueError::new(&field, value, format!("is above max_{name}: no node can be both")));
        }
    }
}

impl NodeFilter {
    fn has(&self, neuron: &Neuron, standing: &Standing, block: u64) -> bool {
        let same = |wanted: Option<bool>, found: bool| wanted.is_none_or(|wanted| wanted == found);
        self.kind.is_none_or(|kind| kind == standing.kind)
            && self.state.is_none_or(|state| state == standing.state)
            && self.stake.has(neuron.total_stake)
            && same(self.permit, neuron.validator_permit)
            && self.trust.has(neuron.vtrust)
            && self.incentive.has(neuron.incentive)
            && same(self.active, neuron.active)
            && self.reachable.is_none_or(|wanted| standing.reachability.is_some_and(|found| found.answers == wanted))
            && self.coldkey.is_none_or(|coldkey| coldkey == neuron.coldkey)
            && self.hotkey.as_ref().is_none_or(|hotkeys| hotkeys.contains(&neuron.hotkey))
            && self.uid.as_ref().is_none_or(|uids| uids.contains(&neuron.uid))
            // A subnet's clock of updates starts at registration; who never set weights has 0 or that block there.
            && self.updated_within.is_none_or(|blocks| block.saturating_sub(neuron.last_update) <= blocks)
    }
}

impl Query {
    fn parse(text: &str) -> Result<Self, Vec<ValueError>> {
        let mut refusals = Refusals::default();
        let pairs = Pairs::parse(text, &mut refusals);
        let share = "is not a share from 0 to 1, such as 0.25";
        let amount = "is not an amount of TAO such as 1000 or 0.5";
        let score = |value: &str| parse_share(value).ok_or_else(|| share.to_owned());
        let tao = |value: &str| value.parse::<Tao>().map_err(|_| amount.to_owned());
        let flag = |value: &str| value.parse::<bool>().map_err(|_| "is neither true nor false".to_owned());
        let mut take = pairs.take(&mut refusals);
        let filter = NodeFilter {
            kind: take.word("kind", &[("validator", NodeKind::Validator), ("miner", NodeKind::Miner)]),
            state: take.word(
                "state",
                &[
                    ("discovered", EntryState::Discovered),
                    ("verified", EntryState::Verified),
                    ("active", EntryState::Active),
                    ("inactive", EntryState::Inactive),
                    ("below_stake", EntryState::BelowStake),
                ],
            ),
            stake: Range { min: take.one("min_stake", tao), max: take.one("max_stake", tao) },
            permit: take.one("permit", flag),
            trust: Range { min: take.one("min_trust", score), max: take.one("max_trust", score) },
            incentive: Range { min: take.one("min_incentive", score), max: take.one("max_incentive", score) },
            active: take.one("active", flag),
            reachable: take.one("reachable", flag),
            coldkey: take.one("coldkey", |value| value.parse().map_err(|error: ValueError| error.expected)),
            hotkey: take.list("hotkey", HOTKEYS_MAX, |value| value.parse().map_err(|error: ValueError| error.expected)),
            uid: take.list("uid", UIDS_MAX, |value| value.parse().map_err(|error: ValueError| error.expected)),
            updated_within: take.one("updated_within", |value| {
                let blocks = value.parse::<i32>().ok().and_then(|blocks| u64::try_from(blocks).ok());
                blocks.ok_or_else(|| format!("is not a number of blocks from 0 to {}", i32::MAX))
            }),
        };
        let sorts =
            [("uid", Sort::Uid), ("stake", Sort::Stake), ("incentive", Sort::Incentive), ("trust", Sort::Trust)];
        let sort = take.word("sort", &sorts).unwrap_or_default();
        let descending = take.one("desc", flag).unwrap_or_default();
        let limit = take.one("limit", |value| {
            let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
            limit.ok_or_else(|| format!("is not a number from 1 to {LIMIT_MAX}"))
        });
        let cursor = take.one("cursor", |value| {
            Cursor::parse(value).ok_or_else(|| "is no cursor: take `next` of the page before as it is".to_owned())
        });
        take.end();
        filter.stake.check("stake", &pairs, &mut refusals);
        filter.trust.check("trust", &pairs, &mut refusals);
        filter.incentive.check("incentive", &pairs, &mut refusals);
        let fingerprint = fingerprint(&pairs);
        if cursor.as_ref().is_some_and(|cursor| cursor.fingerprint != fingerprint) {
            let shown = pairs.get("cursor").unwrap_or_default();
            let expected = "belongs to a list with other parameters: repeat those of its first page, but `limit`";
            refusals.add(ValueError::new("cursor", shown, expected));
        }
        refusals.into_result()?;
        Ok(Self { filter, sort, descending, limit: limit.unwrap_or(LIMIT_DEFAULT), cursor, fingerprint })
    }

    fn compare(&self, one: &Neuron, other: &Neuron) -> Ordering {
        let order = match self.sort {
            Sort::Uid => one.uid.cmp(&other.uid),
            Sort::Stake => one.total_stake.cmp(&other.total_stake),
            Sort::Incentive => one.incentive.cmp(&other.incentive),
            Sort::Trust => one.vtrust.cmp(&other.vtrust),
        };
        let order = if self.descending { order.reverse() } else { order };
        // Equals keep the order of slots either way.
        order.then(one.uid.cmp(&other.uid))
    }
}

/// A share as text. `nan` and `inf` are floats to Rust, and no shares.
fn parse_share(text: &str) -> Option<Score> {
    let share: f64 = text.parse().ok()?;
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'-' | b'+'));
    (plain && (0.0..=1.0).contains(&share)).then(|| Score::from_f64(share))
}

fn fingerprint(pairs: &Pairs) -> [u8; Cursor::FINGERPRINT] {
    let mut hash = Sha256::new();
    for (name, value) in pairs.iter().filter(|(name, _)| !matches!(*name, "cursor" | "limit")) {
        for part in [name, value] {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
    }
    let mut fingerprint = [0; Cursor::FINGERPRINT];
    fingerprint.copy_from_slice(&hash.finalize()[..Cursor::FINGERPRINT]);
    fingerprint
}

/// Where the next page begins: in which list, at which moment, behind how many nodes. Opaque to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cursor {
    block_hash: BlockHash,
    sequence: u64,
    fingerprint: [u8; Cursor::FINGERPRINT],
    position: u64,
}

impl Cursor {
    const FINGERPRINT: usize = 8;

    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32 + 8 + Self::FINGERPRINT + 8];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        let (block_hash, rest) = bytes.split_first_chunk::<32>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (fingerprint, rest) = rest.split_first_chunk::<{ Self::FINGERPRINT }>()?;
        let position = rest.first_chunk::<8>()?;
        Some(Self {
            block_hash: BlockHash(*block_hash),
            sequence: u64::from_le_bytes(*sequence),
            fingerprint: *fingerprint,
            position: u64::from_le_bytes(*position),
        })
    }

    fn text(&self) -> String {
        let parts =
            [&self.block_hash.0[..], &self.sequence.to_le_bytes(), &self.fingerprint, &self.position.to_le_bytes()];
        hex::encode(parts.concat())
    }
}

/// The nodes of the subnet
///
/// What the chain says of each, and where it stands in this sidecar's registry. A list of several pages is read at one
/// block, whatever comes meanwhile: ask for the next page with `cursor` soon.
#[utoipa::path(
    get,
    path = "/v1/nodes",
    tag = "subnet",
    params(Parameters),
    responses(
        (status = 200, description = "One page", body = NodesBody),
        (status = 304, description = "The same as what the client holds"),
        (status = 400, description = "`urn:mycelium:invalid-parameter`: every one that cannot be used"),
        (status = 410, description = "`urn:mycelium:cursor-expired`: start again"),
        (status = 503, description = "`urn:mycelium:chain-unavailable`: the chain was not read yet"),
    )
)]
pub(crate) fn list(app: &App, asked: &Asked) -> Response {
    match page(app, asked) {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

fn page(app: &App, asked: &Asked) -> Result<Response, Problem> {
    let query = Query::parse(asked.query.as_deref().unwrap_or_default()).map_err(Problem::InvalidParameters)?;
    let moment = match &query.cursor {
        None => app.recent.now(app, &held(app)?),
        Some(cursor) => app.recent.find(cursor.block_hash, cursor.sequence).ok_or(Problem::CursorExpired)?,
    };
    Ok(tagged(asked, &moment.etag(), || {
        let block = moment.metagraph.block;
        let mut nodes: Vec<_> =
            moment.nodes().filter(|(neuron, standing)| query.filter.has(neuron, standing, block)).collect();
        nodes.sort_by(|(one, _), (other, _)| query.compare(one, other));
        let start = query.cursor.as_ref().map_or(0, |cursor| usize::try_from(cursor.position).unwrap_or(usize::MAX));
        let end = start.saturating_add(query.limit);
        let next = (end < nodes.len()).then(|| Cursor {
            block_hash: moment.metagraph.block_hash,
            sequence: moment.sequence,
            fingerprint: query.fingerprint,
            position: end as u64,
        });
        NodesBody {
            block,
            block_hash: moment.metagraph.block_hash,
            total: nodes.len(),
            nodes: nodes.into_iter().skip(start).take(query.limit).map(Moment::body).collect(),
            next: next.map(|cursor| cursor.text()),
        }
    }))
}

/// One node
#[utoipa::path(
    get,
    path = "/v1/nodes/{id}",
    tag = "subnet",
    params(("id" = String, Path, description = "Hotkey or uid of the node")),
    responses(
        (status = 200, description = "The node", body = NodeBody),
        (status = 304, description = "The same as what the client holds"),
        (status = 400, description = "`urn:mycelium:invalid-parameter`: neither a hotkey nor a uid"),
        (status = 404, description = "`urn:mycelium:unknown-node`: not registered on this subnet"),
        (status = 503, description = "`urn:mycelium:chain-unavailable`: the chain was not read yet"),
    )
)]
pub(crate) fn one(app: &App, asked: &Asked, id: &str) -> Response {
    let found = || {
        let id = super::query::decode_segment("id", id)?;
        let wanted = Id::parse(&id)?;
        let moment = app.recent.now(app, &held(app)?);
        let index = moment.nodes().position(|(neuron, _)| wanted.is(neuron)).ok_or(Problem::UnknownNode(id))?;
        Ok((moment, index))
    };
    match found() {
        Ok((moment, index)) => tagged(asked, &moment.etag(), || moment.nodes().nth(index).map(Moment::body)),
        Err(problem) => Problem::into_response(problem),
    }
}

/// How one node is named in a path.
enum Id {
    Uid(Uid),
    Hotkey(Hotkey),
}

impl Id {
    fn parse(text: &str) -> Result<Self, ValueError> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::Uid).map_err(|error| error.of_field("id"));
        }
        let wrong = |error: ValueError| {
            ValueError { expected: format!("{}; give a hotkey or a uid", error.expected), ..error }.of_field("id")
        };
        text.parse().map(Self::Hotkey).map_err(wrong)
    }

    fn is(&self, neuron: &Neuron) -> bool {
        match self {
            Self::Uid(uid) => neuron.uid == *uid,
            Self::Hotkey(hotkey) => neuron.hotkey == *hotkey,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_value_is_named_at_once() {
        let refused =
            |text: &str| -> Vec<String> { Query::parse(text).unwrap_err().iter().map(ToString::to_string).collect() };
        let all = refused("kind=both&min_stake=-1&permit=maybe&max_trust=1.5&uid=1,x&limit=0&sortt=uid&cursor=7");
        assert_eq!(all.len(), 8, "{all:#?}");
        for part in [
            "kind: `both` is none of validator, miner",
            "min_stake: `-1` is not an amount",
            "permit: `maybe` is neither true nor false",
            "max_trust: `1.5` is not a share",
            "uid: `x` is not a whole number",
            "limit: `0` is not a number from 1 to 1024",
            "cursor: `7` is no cursor",
            "sortt: `uid` is no parameter here: did you mean `sort`?",
        ] {
            assert!(all.iter().any(|line| line.starts_with(part)), "{part}: {all:#?}");
        }
        for (text, part) in [
            ("min_stake=2&max_stake=1", "min_stake: `2` is above max_stake"),
            ("kind=miner&kind=miner", "kind: `miner` is given twice"),
            ("min_trust=nan", "min_trust: `nan` is not a share"),
            ("kind=%ff", "kind: `%ff` is not UTF-8"),
            ("%zz=1", "%zz: `1` has a % without two hex digits"),
            ("uid=", "uid: `` is an empty list"),
            ("kind", "kind: `` is none of"),
            ("", ""),
        ] {
            match Query::parse(text) {
                Ok(_) => assert_eq!(text, ""),
                Err(errors) => assert!(errors[0].to_string().starts_with(part), "{text}: {errors:?}"),
            }
        }
    }

    #[test]
    fn cursors_read_back_and_belong_to_their_list() {
        let pairs = Query::parse("kind=miner&sort=stake").unwrap();
        let cursor =
            Cursor { block_hash: BlockHash([7; 32]), sequence: 9, fingerprint: pairs.fingerprint, position: 256 };
        let text = cursor.text();
        assert_eq!(Cursor::parse(&text), Some(cursor.clone()));
        let again = Query::parse(&format!("limit=5&kind=miner&sort=stake&cursor={text}")).unwrap();
        assert_eq!(again.cursor, Some(cursor));
        let other = Query::parse(&format!("kind=validator&sort=stake&cursor={text}")).unwrap_err();
        assert!(other[0].expected.contains("other parameters"), "{other:?}");
    }
}
