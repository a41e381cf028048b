//! A group of members that can be started, cut off, crashed and wiped.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends here")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sidecar_consensus::fake::FakeNetwork;
use sidecar_consensus::{Command, Consensus, ConsensusConfig, ConsensusError, Reply, StakeObservation};
use sidecar_util::config::{GroupConfig, Member, TimingProfile};
use sidecar_util::http::GroupStatus;
use sidecar_util::{Hotkey, RAO_PER_TAO, Tao};
use tempfile::TempDir;
use tokio::sync::watch;

/// How long anything may take on a busy machine. A group that works needs a fraction of it.
const DEADLINE: Duration = Duration::from_mins(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

pub(crate) fn hotkey(seed: u8) -> Hotkey {
    Hotkey::from([seed; 32])
}

pub(crate) fn member(seed: u8) -> Member {
    Member { hotkey: hotkey(seed), address: format!("validator-{seed}:9101") }
}

/// A group whose members are named by small numbers. Member 1 is its founder.
pub(crate) struct Cluster {
    pub(crate) network: FakeNetwork,
    group: watch::Sender<GroupConfig>,
    disks: BTreeMap<u8, TempDir>,
    running: BTreeMap<u8, Consensus>,
    block: u64,
}

impl Cluster {
    /// A group with a list of members, none of them running.
    pub(crate) fn new(seeds: &[u8], voters: u8) -> Self {
        show_log();
        let group = GroupConfig {
            cluster_id: "test".into(),
            founder: hotkey(1),
            founded: false,
            voters,
            timing: TimingProfile::Test,
            members: seeds.iter().map(|seed| member(*seed)).collect(),
        };
        let network = FakeNetwork::new();
        Self { network, group: watch::Sender::new(group), disks: BTreeMap::new(), running: BTreeMap::new(), block: 0 }
    }

    /// A group in which everybody runs and whoever can vote votes.
    pub(crate) async fn formed(seeds: &[u8], voters: u8) -> Self {
        Self::new(seeds, voters).form().await
    }

    /// The same with the timing of the default profile: slower, and steady on a busy machine.
    pub(crate) async fn formed_steadily(seeds: &[u8], voters: u8) -> Self {
        let cluster = Self::new(seeds, voters);
        cluster.edit(|group| group.timing = TimingProfile::Lan);
        cluster.form().await
    }

    async fn form(self) -> Self {
        let mut cluster = self;
        let (seeds, voters) = {
            let group = cluster.group.borrow();
            let seeds: Vec<u8> = group.members.iter().map(|member| member.hotkey.as_bytes()[0]).collect();
            (seeds, group.voters)
        };
        for seed in &seeds {
            cluster.start(*seed).await;
        }
        let wanted = usize::from(voters).min(seeds.len());
        cluster.until("the group is formed", |cluster| cluster.is_settled(&seeds, wanted)).await;
        cluster
    }

    /// Starts a member on its disk, or on an empty one.
    pub(crate) async fn start(&mut self, seed: u8) -> Consensus {
        self.try_start(seed).await.unwrap()
    }

    pub(crate) async fn try_start(&mut self, seed: u8) -> Result<Consensus, ConsensusError> {
        let disk = self.disks.entry(seed).or_insert_with(|| tempfile::tempdir().unwrap());
        let config = ConsensusConfig { data_dir: disk.path().to_owned(), hotkey: hotkey(seed) };
        let transport = self.network.transport(hotkey(seed));
        let consensus = Consensus::start(config, transport, self.group.subscribe()).await?;
        let address = self.address(seed);
        self.network.open(&Member { hotkey: hotkey(seed), address }, consensus.clone());
        self.running.insert(seed, consensus.clone());
        Ok(consensus)
    }

    /// Ends a member in order.
    pub(crate) async fn stop(&mut self, seed: u8) {
        let consensus = self.running.remove(&seed).unwrap();
        consensus.shutdown().await;
        self.network.close(&self.address(seed));
    }

    /// Ends a member without a word to the others, as `kill -9` does.
    pub(crate) async fn crash(&mut self, seed: u8) {
        self.cut_off(&[seed]);
        let consensus = self.running.remove(&seed).unwrap();
        self.network.close(&self.address(seed));
        consensus.shutdown().await;
        self.network.heal();
    }

    /// Throws a stopped member's disk away.
    pub(crate) fn wipe(&mut self, seed: u8) {
        assert!(!self.running.contains_key(&seed), "stop a member before its disk is wiped");
        self.disks.remove(&seed);
    }

    /// Cuts members off from everybody, also from one another.
    pub(crate) fn cut_off(&self, seeds: &[u8]) {
        for seed in seeds {
            self.network.isolate(hotkey(*seed), self.seeds().into_iter().map(hotkey));
        }
    }

    /// Changes the list as the operator does.
    pub(crate) fn edit(&self, change: impl FnOnce(&mut GroupConfig)) {
        self.group.send_modify(change);
    }

    /// Gives everybody a metagraph of a new epoch with these stakes in TAO.
    pub(crate) fn observe(&mut self, stakes: &[(u8, u64)]) {
        self.block += 100;
        let stake = |(seed, tao): &(u8, u64)| (hotkey(*seed), Tao::from_rao(tao * RAO_PER_TAO));
        let stakes: Vec<_> = stakes.iter().map(stake).collect();
        for consensus in self.running.values() {
            let observation =
                StakeObservation { block: self.block, tempo: 100, tiers: Vec::new(), stakes: stakes.clone() };
            consensus.observe_stakes(observation);
        }
    }

    /// Waits until everybody's weights name these members, heaviest first.
    pub(crate) async fn weighed(&mut self, stakes: &[(u8, u64)]) {
        self.observe(stakes);
        let mut order = stakes.to_vec();
        order.sort_by_key(|(seed, tao)| (std::cmp::Reverse(*tao), *seed));
        let order: Vec<Hotkey> = order.iter().map(|(seed, _)| hotkey(*seed)).collect();
        self.until("the weights are replicated", |cluster| {
            cluster.statuses().values().all(|status| {
                let known: Vec<Hotkey> = status.weights.iter().map(|weight| weight.hotkey).collect();
                known == order
            })
        })
        .await;
    }

    pub(crate) fn seeds(&self) -> Vec<u8> {
        self.disks.keys().copied().collect()
    }

    pub(crate) fn get(&self, seed: u8) -> &Consensus {
        &self.running[&seed]
    }

    pub(crate) fn status(&self, seed: u8) -> GroupStatus {
        self.running[&seed].status()
    }

    pub(crate) fn statuses(&self) -> BTreeMap<u8, GroupStatus> {
        self.running.iter().map(|(seed, consensus)| (*seed, consensus.status())).collect()
    }

    /// The member that leads in its own eyes and in those of all the given members.
    pub(crate) fn leader_of(&self, seeds: &[u8]) -> Option<u8> {
        let leader = self.running[seeds.first()?].leader()?;
        let known = seeds.iter().copied().find(|seed| hotkey(*seed) == leader)?;
        seeds.iter().all(|seed| self.running[seed].leader() == Some(leader)).then_some(known)
    }

    /// Whether these members are the group, so many of them vote, and all agree on everything.
    pub(crate) fn is_settled(&self, seeds: &[u8], voters: usize) -> bool {
        let statuses: Vec<GroupStatus> = seeds.iter().map(|seed| self.status(*seed)).collect();
        let everybody: Vec<Hotkey> = seeds.iter().map(|seed| hotkey(*seed)).collect();
        let first = &statuses[0];
        self.leader_of(seeds).is_some()
            && statuses.iter().all(|status| {
                let mut known = [&status.voters[..], &status.learners[..]].concat();
                known.sort();
                let same = (status.applied_index, &status.state_hash) == (first.applied_index, &first.state_hash);
                known == everybody && status.voters.len() == voters && same
            })
    }

    /// Waits until something is so; panics with everybody's status when it takes too long.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        self.find(what, |cluster| is_so(cluster).then_some(())).await;
    }

    /// Waits until one of these members leads all of them.
    pub(crate) async fn elected(&self, seeds: &[u8]) -> u8 {
        self.find("somebody leads", |cluster| cluster.leader_of(seeds)).await
    }

    async fn find<T>(&self, what: &str, look: impl Fn(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "waited in vain until {what}: {:#?}", self.statuses());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Has a command applied once or more by whoever leads these members.
    pub(crate) async fn propose(&self, command: Command, seeds: &[u8]) -> Reply {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let leader = self.elected(seeds).await;
            match self.get(leader).propose(command.clone()).await {
                Ok(reply) => return reply,
                Err(error @ ConsensusError::Stopped { .. }) => panic!("{error}"),
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        }
    }

    /// Sets a key through whoever leads, and waits until the given members have applied it.
    pub(crate) async fn put(&self, key: &str, value: &str, seeds: &[u8]) {
        let reply = self.propose(Command::Put { key: key.into(), value: value.into() }, seeds).await;
        assert!(matches!(reply, Reply::Written { .. }), "{reply:?}");
        self.until("the key is everywhere", |cluster| seeds.iter().all(|seed| cluster.holds(*seed, key, value))).await;
    }

    pub(crate) fn holds(&self, seed: u8, key: &str, value: &str) -> bool {
        self.get(seed).read(|state| state.get(key.as_bytes()).is_some_and(|found| found.value == value.as_bytes()))
    }

    fn address(&self, seed: u8) -> String {
        let group = self.group.borrow();
        let listed = group.members.iter().find(|listed| listed.hotkey == hotkey(seed));
        listed.map_or_else(|| member(seed).address, |listed| listed.address.clone())
    }

    /// Ends everybody.
    pub(crate) async fn end(mut self) {
        for seed in self.running.keys().copied().collect::<Vec<_>>() {
            self.crash(seed).await;
        }
    }
}

/// `RUST_LOG=sidecar_consensus=debug` shows what happened in a test that failed.
fn show_log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    // Another test of this process was first.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}
