//! A Network: follows its chain, keeps the identity of its group, writes the file that its sidecars read, and sums up.

mod group;
mod status;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crds::v1alpha1::{GroupTiming, MemberStatus, Network, NetworkGroupStatus, NetworkStatus, Validator, conditions};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Resource as _, ResourceExt as _};
use kube_runtime::controller::Action;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use sidecar_util::config::{GroupConfig, Member, NetworkConfig, Tier, TimingProfile};
use sidecar_util::http::GroupStatus;
use sidecar_util::{Hotkey, NetUid};

use crate::apply::{apply_if_needed, ignore_missing};
use crate::chains::ChainState;
use crate::context::{Context, Guarded, NetworkVersion};
use crate::error::{ApiContext as _, Error, chain};
use crate::node::{Kind, Node as _};
use crate::observe::genesis;
use crate::resources::{config_map, service};
use crate::sidecars::Answer;
use crate::{events, labels};

/// A Network is looked at this often even if nothing is heard of it.
const RESYNC: Duration = Duration::from_mins(1);

/// What a look at a Network starts from.
struct Seen {
    chain: ChainState,
    /// Validators that may be part of the group, in the order of hotkeys.
    members: Vec<MemberStatus>,
    /// Whether one of them may still become a member.
    undecided: bool,
    validators: u32,
    miners: u32,
    /// What each validator's sidecar says of the group.
    reports: Vec<GroupStatus>,
    /// Whether each of them was asked: right after a start of the operator they were not.
    all_asked: bool,
    /// Whether volumes of validators are kept, be their Validators gone or not.
    volumes_kept: bool,
}

/// Looks at one Network.
pub(crate) async fn reconcile(guarded: Arc<Guarded<Network>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let started = std::time::Instant::now();
    ctx.chains.retain(|name| ctx.network(name).is_some());
    let result = match &guarded.0 {
        Ok(network) if network.metadata.deletion_timestamp.is_none() => reconcile_network(network, &ctx).await,
        Ok(_) => Ok(Action::await_change()),
        Err(invalid) => {
            tracing::error!(network = ?invalid.metadata.name, error = %invalid.error, "Network cannot be read");
            Ok(Action::await_change())
        }
    };
    ctx.metrics.reconciled("network", started.elapsed(), result.as_ref().err().map(Error::label));
    if result.is_ok() {
        ctx.retries.succeeded(&name_of(&guarded));
    }
    result
}

/// Waits longer after each failure of the same Network.
#[expect(clippy::needless_pass_by_value, reason = "the signature that controllers call")]
pub(crate) fn error_policy(guarded: Arc<Guarded<Network>>, error: &Error, ctx: Arc<Context>) -> Action {
    let name = name_of(&guarded);
    let wait = ctx.retries.failed(&name);
    tracing::warn!(network = name, error = chain(error), ?wait, "reconcile failed, will try again");
    Action::requeue(wait)
}

fn name_of(guarded: &Guarded<Network>) -> String {
    format!("Network {}", guarded.name_any())
}

#[tracing::instrument(skip_all, fields(network = network.name_any()))]
async fn reconcile_network(network: &Network, ctx: &Context) -> Result<Action, Error> {
    ctx.stores.ready().await;
    ctx.chains.follow(network);
    let seen = see(network, ctx).await?;
    let before = network.status.clone().unwrap_or_default();
    let group = group::next(
        before.group.as_ref(),
        &group::Inputs {
            members: &seen.members,
            undecided: seen.undecided,
            metagraph: seen.chain.metagraph.as_deref(),
            reports: &seen.reports,
            all_asked: seen.all_asked,
            volumes_kept: seen.volumes_kept,
        },
    );
    let status = status::network_status(network, &seen, group, jiff::Timestamp::now());
    // The identity of the group is on record before any sidecar hears of it: founded twice is worse than founded late.
    if status::worth_writing(&before, &status) {
        write_status(ctx, network, &status).await?;
    }
    let notes = events::of_conditions(&before.conditions, &status.conditions);
    events::publish(&ctx.recorder, &network.object_ref(&()), &notes).await;
    write_file(ctx, network, status.group.as_ref()).await?;
    Ok(Action::requeue(RESYNC))
}

async fn see(network: &Network, ctx: &Context) -> Result<Seen, Error> {
    let name = network.name_any();
    let staying = |meta: &ObjectMeta| meta.deletion_timestamp.is_none();
    let mut validators = ctx.stores.validators_of(&name);
    validators.retain(|validator| staying(&validator.metadata));
    let miners = ctx.stores.miners_of(&name).iter().filter(|miner| staying(&miner.metadata)).count();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let mut members: Vec<MemberStatus> = validators
        .iter()
        .filter_map(|validator| {
            let status = validator.status.as_ref()?;
            let reserved = status.conditions.iter().find(|condition| condition.type_ == conditions::HOTKEY_RESERVED)?;
            if reserved.status != "True" {
                return None;
            }
            let key = validator.key();
            Some(MemberStatus {
                hotkey: status.hotkey.clone()?,
                address: service::peer_address(&key),
                name: key.path(),
            })
        })
        .collect();
    members.sort_by(|a, b| a.hotkey.cmp(&b.hotkey));
    let answers: Vec<Answer> = validators.iter().map(|validator| ctx.sidecars.answer(&validator.key())).collect();
    Ok(Seen {
        chain: ctx.chains.state(network),
        volumes_kept: !members.is_empty() || volumes_kept(ctx, &name).await?,
        members,
        undecided: validators.iter().any(undecided),
        validators: count(validators.len()),
        miners: count(miners),
        all_asked: !answers.iter().any(|answer| matches!(answer, Answer::NotAsked)),
        reports: answers.iter().filter_map(|answer| answer.body()?.group.clone()).collect(),
    })
}

/// Whether it is not known yet whether a validator runs its hotkey. One that is suspended or must be mended is not waited for.
fn undecided(validator: &Validator) -> bool {
    let conditions = validator.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let status = |type_: &str| conditions.iter().find(|condition| condition.type_ == type_).map(|found| &*found.status);
    let decided = matches!(status(conditions::HOTKEY_RESERVED), Some("True" | "False"))
        || status(conditions::INVALID_SPEC) == Some("True");
    !decided && !validator.spec.suspend
}

/// Whether a volume of a validator of this Network exists anywhere. Asked only when there is no validator.
async fn volumes_kept(ctx: &Context, network: &str) -> Result<bool, Error> {
    let api: Api<PersistentVolumeClaim> = Api::all(ctx.client.clone());
    let selector = format!("{}={network},{}={}", labels::NETWORK, labels::KIND, Kind::Validator.word());
    let claims = api.list_metadata(&ListParams::default().labels(&selector).limit(1)).await;
    Ok(!claims.during(|| "list PersistentVolumeClaims".into())?.items.is_empty())
}

/// The file that the Network's sidecars read.
pub(crate) fn file(network: &Network, group: Option<&NetworkGroupStatus>) -> NetworkConfig {
    let spec = &network.spec;
    NetworkConfig {
        network: network.name_any(),
        endpoints: spec.chain.endpoints.clone(),
        archive_endpoints: spec.chain.archive_endpoints.clone(),
        netuid: NetUid(spec.netuid),
        genesis_hash: genesis(network).and_then(|genesis| genesis.parse().ok()),
        local: spec.local,
        minimum_stake: spec.minimum_stake.0,
        verification_ttl_s: spec.verification_ttl_seconds.into(),
        tiers: spec
            .tiers
            .iter()
            .map(|tier| Tier { name: tier.name.clone(), minimum_stake: tier.minimum_stake.0, weight: tier.weight })
            .collect(),
        group: group.and_then(|group| group_config(network, group)),
    }
}

fn group_config(network: &Network, group: &NetworkGroupStatus) -> Option<GroupConfig> {
    let hotkey = |text: &str| text.parse::<Hotkey>().ok();
    Some(GroupConfig {
        cluster_id: group.cluster_id.clone(),
        founder: hotkey(&group.founder)?,
        founded: group.founded,
        voters: network.spec.group.voters,
        timing: match network.spec.group.timing {
            GroupTiming::Lan => TimingProfile::Lan,
            GroupTiming::Wan => TimingProfile::Wan,
        },
        members: group
            .members
            .iter()
            .filter_map(|member| Some(Member { hotkey: hotkey(&member.hotkey)?, address: member.address.clone() }))
            .collect(),
    })
}

/// Writes the file into every namespace that has nodes of the Network, and tells the pods.
async fn write_file(ctx: &Context, network: &Network, group: Option<&NetworkGroupStatus>) -> Result<(), Error> {
    let name = network.name_any();
    let text = serde_json::to_string_pretty(&file(network, group))
        .map_err(|source| Error::Serialize { what: "the Network's file", source })?;
    let version = hex::encode(&Sha256::digest(&text)[..8]);
    let namespaces: BTreeSet<String> = ctx.stores.keys_of(&name).into_iter().map(|key| key.namespace).collect();
    for namespace in &namespaces {
        let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), namespace);
        let object = config_map::name(&name);
        let live = api.get_opt(&object).await.during(|| format!("get ConfigMap {namespace}/{object}"))?;
        apply_if_needed(ctx, namespace, config_map::config_map(network, namespace, text.clone()), live.as_ref())
            .await?;
    }
    ctx.network_seen(&name, NetworkVersion { file: version, namespaces, generation: network.metadata.generation });
    Ok(())
}

/// Writes only over the status that was read: a stale read must not give the group a second identity.
async fn write_status(ctx: &Context, network: &Network, status: &NetworkStatus) -> Result<(), Error> {
    let api: Api<Network> = Api::all(ctx.client.clone());
    let name = network.name_any();
    let patch = json!({
        "apiVersion": Network::api_version(&()),
        "kind": Network::kind(&()),
        "metadata": { "resourceVersion": network.resource_version() },
        "status": status,
    });
    let params = PatchParams::apply(labels::FIELD_MANAGER).force();
    match api.patch_status(&name, &params, &Patch::Apply(&patch)).await {
        Err(kube::Error::Api(answer)) if answer.is_not_found() => ignore_missing(Ok(())),
        other => other.map(drop),
    }
    .during(|| format!("write status of Network {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{GENESIS, network};

    #[test]
    fn the_file_hands_on_how_the_chain_is_reached() {
        let mut network = network();
        let config = file(&network, None);
        assert_eq!(config.endpoints, ["ws://chain:9944"]);
        assert_eq!(config.genesis_hash.map(|hash| hash.to_string()).as_deref(), Some(GENESIS));
        assert!(config.archive_endpoints.is_empty());
        network.spec.chain.archive_endpoints = vec!["wss://old:443".into()];
        assert_eq!(file(&network, None).archive_endpoints, ["wss://old:443"]);
    }
}
