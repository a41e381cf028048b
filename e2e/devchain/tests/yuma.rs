//! Epochs of the runtime against an oracle: the formulas of Yuma consensus in exact fractions, and the public chain's
//! own published vectors.
//!
//! The oracle is written from the formulas alone, on full matrices of fractions, where the runtime has sparse rows of
//! `f64`. It agrees to the last of the 65,535 steps that are stored: `floor(65535 x + 10^-6)`, where the millionth of a
//! step is what a sum of many shares may fall short of a whole step by.
#![expect(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a test that cannot go on stops; rates are small")]

use e2e_devchain::genesis::Genesis;
use e2e_devchain::node::BlockTime;
use e2e_devchain::pallets::commitments::{self, CommitmentInfo, Data};
use e2e_devchain::pallets::subtensor::{self as s, ConsensusMode, NetUid, NewSubnet};
use e2e_devchain::runtime::{AccountId, Runtime, RuntimeOrigin, SubtensorModule, System};
use frame_support::traits::Hooks;
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{FromPrimitive, One, Signed, ToPrimitive, Zero};
use proptest::prelude::*;
use sp_core::storage::Storage;
use sp_io::TestExternalities;

type Q = BigRational;
type Matrix = Vec<Vec<Q>>;

const NET: NetUid = NetUid(1);
const TEMPO: u16 = 10;
/// Block of the epoch.
const BLOCK: u64 = 100;

fn q(value: impl Into<BigInt>) -> Q {
    Q::from_integer(value.into())
}

/// The curve of liquid alpha between its bounds.
fn sigmoid(difference: &Q, steepness: i16) -> Q {
    let exponent = (-f64::from(steepness) / 100.0 * (difference.to_f64().unwrap() - 0.5)).clamp(-20.0, 20.0);
    Q::from_f64(1.0 / (1.0 + exponent.exp())).unwrap()
}

fn share(value: u16) -> Q {
    Q::new(value.into(), 65_535.into())
}

/// How a share is stored.
fn stored(x: &Q) -> u16 {
    let steps = x.clone().min(Q::one()).max(Q::zero()) * q(65_535) + Q::new(1.into(), 1_000_000.into());
    steps.floor().to_integer().to_u16().unwrap()
}

fn normalized(values: &[Q]) -> Vec<Q> {
    let sum: Q = values.iter().sum();
    values.iter().map(|value| if sum.is_zero() { Q::zero() } else { value / &sum }).collect()
}

/// One mechanism's tables.
#[derive(Debug, Clone)]
struct Mechanism {
    /// Per row, what was set: column and weight. A weight of 0 differs from none.
    weights: Vec<Vec<(u16, u16)>>,
    bonds: Vec<Vec<(u16, u16)>>,
    last_update: Vec<u64>,
    /// Blocks of commits that wait, per uid.
    commits: Vec<Option<u64>>,
    previous_consensus: Vec<u16>,
}

#[derive(Debug, Clone)]
struct Subnet {
    stake: Vec<u64>,
    threshold: u64,
    registered_at: Vec<u64>,
    permits: Vec<bool>,
    owner: Option<u16>,
    mechanisms: Vec<Mechanism>,
    split: Option<Vec<u16>>,
    max_validators: u16,
    kappa: u16,
    penalty: u16,
    moving_average: u64,
    yuma3: bool,
    liquid: Option<(u16, u16, i16)>,
    mode: ConsensusMode,
    cutoff_milli: u32,
    last_step: u64,
    commit_reveal: bool,
    server: u64,
    validator: u64,
}

/// What an epoch leaves behind.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    consensus: Vec<u16>,
    validator_trust: Vec<u16>,
    dividends: Vec<u16>,
    stake_weight: Vec<u16>,
    permits: Vec<bool>,
    active: Vec<bool>,
    emission: Vec<u64>,
    incentive: Vec<Vec<u16>>,
    bonds: Vec<Vec<Vec<(u16, u16)>>>,
}

// ---- the oracle ----

fn zeros(n: usize) -> Matrix {
    vec![vec![Q::zero(); n]; n]
}

/// Divides every column by its sum.
fn column_normalized(matrix: &Matrix) -> Matrix {
    let n = matrix.len();
    let mut out = zeros(n);
    for j in 0..n {
        let sum: Q = matrix.iter().map(|row| &row[j]).sum();
        for i in 0..n {
            if !sum.is_zero() {
                out[i][j] = &matrix[i][j] / &sum;
            }
        }
    }
    out
}

struct Epoch {
    stake: Vec<Q>,
    active_stake: Vec<Q>,
    active: Vec<bool>,
    consensus: Vec<Q>,
    validator_trust: Vec<Q>,
    incentive: Vec<Q>,
    dividends: Vec<Q>,
    bonds: Matrix,
}

impl Subnet {
    fn n(&self) -> usize {
        self.stake.len()
    }

    fn counted_stake(&self) -> Vec<u64> {
        let counts = |(uid, stake): (usize, &u64)| {
            let owner = self.owner.is_some_and(|owner| usize::from(owner) == uid);
            if *stake >= self.threshold || owner { *stake } else { 0 }
        };
        self.stake.iter().enumerate().map(counts).collect()
    }

    fn old_permits(&self) -> Vec<bool> {
        (0..self.n())
            .map(|uid| self.permits[uid] || self.owner.is_some_and(|owner| usize::from(owner) == uid))
            .collect()
    }

    fn new_permits(&self) -> Vec<bool> {
        let stake = self.counted_stake();
        let rank = |uid: usize| stake.iter().enumerate().filter(|(other, s)| (**s, *other) > (stake[uid], uid)).count();
        let heavy = |uid: usize| stake[uid] > 0 && rank(uid) < usize::from(self.max_validators);
        (0..self.n()).map(|uid| heavy(uid) || self.owner.is_some_and(|owner| usize::from(owner) == uid)).collect()
    }

    fn epoch(&self, m: &Mechanism) -> Epoch {
        let n = self.n();
        let permits = self.old_permits();
        let cutoff = (u64::from(self.cutoff_milli) * u64::from(TEMPO) / 1000).max(1);
        let active: Vec<bool> = m.last_update.iter().map(|last| last + cutoff >= BLOCK).collect();
        let stake = normalized(&self.counted_stake().into_iter().map(q).collect::<Vec<_>>());
        let masked: Vec<Q> =
            (0..n).map(|i| if active[i] && permits[i] { stake[i].clone() } else { Q::zero() }).collect();
        let active_stake = normalized(&masked);

        // W, and which of its entries were set at all.
        let mut weights = zeros(n);
        let mut set = vec![vec![false; n]; n];
        for i in (0..n).filter(|i| permits[*i]) {
            for (j, value) in &m.weights[i] {
                let j = usize::from(*j);
                let on_itself = i == j && self.owner.map(usize::from) != Some(i);
                let outdated = m.last_update[i] <= self.registered_at[j];
                let unknown = self.commit_reveal && m.commits[i].is_some_and(|commit| commit < self.registered_at[j]);
                if !(on_itself || outdated || unknown) {
                    weights[i][j] = q(*value);
                    set[i][j] = true;
                }
            }
            weights[i] = normalized(&weights[i]);
        }

        // Consensus: the largest weight on a neuron with at most a minority of the stake below it.
        let kappa = share(self.kappa);
        let total: Q = active_stake.iter().sum();
        let mut consensus = vec![Q::zero(); n];
        for (j, consensus) in consensus.iter_mut().enumerate() {
            for i in (0..n).filter(|i| active_stake[*i].is_positive()) {
                let candidate = &weights[i][j];
                let below: Q = (0..n).filter(|k| weights[*k][j] < *candidate).map(|k| &active_stake[k]).sum();
                if below <= (Q::one() - &kappa) * &total && candidate > consensus {
                    *consensus = candidate.clone();
                }
            }
        }

        let mut clipped = zeros(n);
        for i in 0..n {
            for j in 0..n {
                clipped[i][j] = weights[i][j].clone().min(consensus[j].clone());
            }
        }
        let validator_trust = clipped.iter().map(|row| row.iter().sum()).collect();
        let ranks: Vec<Q> = (0..n).map(|j| (0..n).map(|i| &active_stake[i] * &clipped[i][j]).sum()).collect();
        let incentive = normalized(&ranks);

        // What bonds follow.
        let penalty = share(self.penalty);
        let mut bought = zeros(n);
        for i in 0..n {
            for j in 0..n {
                bought[i][j] = &weights[i][j] + &penalty * (&clipped[i][j] - &weights[i][j]);
                set[i][j] &= match self.penalty {
                    0 => true,
                    // Clipping removes what has no consensus at all, but keeps a weight of 0.
                    u16::MAX => consensus[j].is_positive() || weights[i][j].is_zero(),
                    _ => bought[i][j].is_positive(),
                };
            }
        }
        let since = if self.last_step == 0 { BLOCK - u64::from(TEMPO) } else { self.last_step + 1 };
        let mut old = zeros(n);
        for (row, bonds) in old.iter_mut().zip(&m.bonds) {
            for (j, value) in bonds {
                if self.registered_at[usize::from(*j)] < since {
                    row[usize::from(*j)] = share(*value);
                }
            }
        }
        let rate = Q::one() - Q::new(self.moving_average.into(), 1_000_000.into());
        let average = |new: &Matrix, old: &Matrix| {
            let mut out = zeros(n);
            for i in 0..n {
                for j in 0..n {
                    out[i][j] = &rate * &new[i][j] + (Q::one() - &rate) * &old[i][j];
                }
            }
            out
        };

        let (bonds, dividends) = if self.yuma3 {
            let bonds = self.liquid_bonds(m, &bought, &set, &old, &consensus).unwrap_or_else(|| average(&bought, &old));
            let shares = column_normalized(&bonds);
            let earned = |i: usize| -> Q { (0..n).map(|j| &shares[i][j] * &incentive[j]).sum() };
            let dividends: Vec<Q> = (0..n).map(|i| earned(i) * &active_stake[i]).collect();
            (bonds, normalized(&dividends))
        } else {
            let mut delta = zeros(n);
            for i in 0..n {
                for j in 0..n {
                    delta[i][j] = &bought[i][j] * &active_stake[i];
                }
            }
            let mut bonds = column_normalized(&average(&column_normalized(&delta), &column_normalized(&old)));
            let dividends: Vec<Q> = (0..n).map(|i| (0..n).map(|j| &bonds[i][j] * &incentive[j]).sum()).collect();
            for j in 0..n {
                let largest = bonds.iter().map(|row| row[j].clone()).max().unwrap();
                for row in bonds.iter_mut().filter(|_| largest.is_positive()) {
                    row[j] = &row[j] / &largest;
                }
            }
            (bonds, normalized(&dividends))
        };
        Epoch { stake, active_stake, active, consensus, validator_trust, incentive, dividends, bonds }
    }

    /// Bonds of liquid alpha: every pair moves at its own rate. `None` where it does not apply.
    fn liquid_bonds(
        &self,
        m: &Mechanism,
        new: &Matrix,
        set: &[Vec<bool>],
        old: &Matrix,
        current: &[Q],
    ) -> Option<Matrix> {
        let (low, high, steepness) = self.liquid?;
        let (low, high) = (share(low), share(high));
        let previous =
            self.mode == ConsensusMode::Previous || self.mode == ConsensusMode::Auto && self.penalty == u16::MAX;
        let n = self.n();
        let consensus: Vec<Q> =
            if previous { m.previous_consensus.iter().copied().map(share).collect() } else { current.to_vec() };
        if consensus.iter().all(Zero::is_zero) {
            return None;
        }
        let mut bonds = zeros(n);
        for i in 0..n {
            for j in (0..n).filter(|j| set[i][*j]) {
                let difference =
                    if new[i][j] >= old[i][j] { &new[i][j] - &consensus[j] } else { &old[i][j] - &new[i][j] };
                let rate = (&low + sigmoid(&difference.max(Q::zero()).min(Q::one()), steepness) * (&high - &low))
                    .max(low.clone())
                    .min(high.clone());
                let bond = (Q::one() - &rate) * &old[i][j] + rate * &new[i][j];
                bonds[i][j] = bond.min(Q::one());
            }
        }
        Some(bonds)
    }

    /// Parts of an amount for each mechanism.
    fn parts(&self, amount: u64) -> Vec<u64> {
        let count = self.mechanisms.len();
        let mut parts: Vec<u64> = match &self.split {
            Some(split) => {
                split.iter().map(|s| u64::try_from(u128::from(amount) * u128::from(*s) / 65_535).unwrap()).collect()
            }
            None => vec![amount / count as u64; count],
        };
        parts[0] += amount - parts.iter().sum::<u64>();
        parts
    }

    fn expected(&self) -> Outcome {
        let n = self.n();
        let permits = self.new_permits();
        let total = self.server + self.validator;
        let mut sums = [vec![0u64; n], vec![0; n], vec![0; n], vec![0; n], vec![0; n]];
        let mut out = Outcome {
            consensus: Vec::new(),
            validator_trust: Vec::new(),
            dividends: Vec::new(),
            stake_weight: Vec::new(),
            permits: permits.clone(),
            active: vec![false; n],
            emission: Vec::new(),
            incentive: Vec::new(),
            bonds: Vec::new(),
        };
        let parts = self.parts(self.server).into_iter().zip(self.parts(self.validator)).map(|(a, b)| a + b);
        for (index, (m, emission)) in self.mechanisms.iter().zip(parts).enumerate() {
            let epoch = self.epoch(m);
            let weighted = |value: u64| {
                let value = u128::from(value);
                let part = if total > 0 {
                    value * u128::from(emission) / u128::from(total)
                } else {
                    value * u128::from(index == 0)
                };
                u64::try_from(part).unwrap()
            };
            let both: Vec<Q> = epoch.incentive.iter().zip(&epoch.dividends).map(|(a, b)| a + b).collect();
            let shares = [both, epoch.active_stake, epoch.stake.clone()];
            let shares = shares.iter().find(|shares| shares.iter().any(Signed::is_positive)).map(|s| normalized(s));
            for uid in 0..n {
                for (sum, value) in
                    sums.iter_mut().zip([&epoch.consensus, &epoch.validator_trust, &epoch.dividends, &epoch.stake])
                {
                    sum[uid] += weighted(u64::from(stored(&value[uid])));
                }
                let emitted = shares.as_ref().map_or_else(Q::zero, |shares| &shares[uid] * q(emission));
                sums[4][uid] += weighted(emitted.floor().to_integer().to_u64().unwrap());
                out.active[uid] |= epoch.active[uid];
            }
            out.incentive.push(epoch.incentive.iter().map(stored).collect());
            let row = |uid: usize| -> Vec<(u16, u16)> {
                let bonds = (0u16..).zip(&epoch.bonds[uid]).filter(|(_, bond)| permits[uid] && bond.is_positive());
                bonds.map(|(column, bond)| (column, stored(bond))).collect()
            };
            out.bonds.push((0..n).map(row).collect());
        }
        let [consensus, validator_trust, dividends, stake_weight, emission] = sums;
        let narrow = |values: Vec<u64>| values.into_iter().map(|value| u16::try_from(value).unwrap()).collect();
        out.consensus = narrow(consensus);
        out.validator_trust = narrow(validator_trust);
        out.dividends = narrow(dividends);
        out.stake_weight = narrow(stake_weight);
        out.emission = emission;
        out
    }

    // ---- the runtime ----

    fn hotkey(uid: usize) -> AccountId {
        AccountId::new([u8::try_from(uid + 1).unwrap(); 32])
    }

    fn write(&self) {
        let n = self.n();
        let coldkey = AccountId::new([200; 32]);
        let owner_hotkey = self.owner.map_or(AccountId::new([0; 32]), |uid| Self::hotkey(uid.into()));
        let new = NewSubnet { owner: coldkey.clone(), owner_hotkey, mechanism: 0, pool_tao: 0, pool_alpha: 0 };
        SubtensorModule::init_subnet(NET, new);
        if self.owner.is_none() {
            s::SubnetOwner::<Runtime>::remove(NET);
            s::SubnetOwnerHotkey::<Runtime>::remove(NET);
        }
        let count = u8::try_from(self.mechanisms.len()).unwrap();
        s::MechanismCountCurrent::<Runtime>::insert(NET, count);
        if let Some(split) = &self.split {
            s::MechanismEmissionSplit::<Runtime>::insert(NET, split);
        }
        for (uid, stake) in self.stake.iter().enumerate() {
            let hotkey = Self::hotkey(uid);
            SubtensorModule::create_hotkey_if_new(&AccountId::new([100; 32]), &hotkey);
            SubtensorModule::register_neuron(NET, &hotkey).unwrap();
            if *stake > 0 {
                SubtensorModule::increase_stake(&hotkey, &coldkey, NET, *stake);
            }
            let slot = u16::try_from(uid).unwrap();
            s::BlockAtRegistration::<Runtime>::insert(NET, slot, self.registered_at[uid]);
        }
        s::StakeThreshold::<Runtime>::put(self.threshold);
        s::ValidatorPermit::<Runtime>::insert(NET, &self.permits);
        s::MaxAllowedValidators::<Runtime>::insert(NET, self.max_validators);
        s::Kappa::<Runtime>::insert(NET, self.kappa);
        s::BondsPenalty::<Runtime>::insert(NET, self.penalty);
        s::BondsMovingAverage::<Runtime>::insert(NET, self.moving_average);
        s::Yuma3On::<Runtime>::insert(NET, self.yuma3);
        s::LiquidAlphaOn::<Runtime>::insert(NET, self.liquid.is_some());
        if let Some((low, high, steepness)) = self.liquid {
            s::AlphaValues::<Runtime>::insert(NET, (low, high));
            s::AlphaSigmoidSteepness::<Runtime>::insert(NET, steepness);
        }
        s::LiquidAlphaConsensusMode::<Runtime>::insert(NET, self.mode);
        s::ActivityCutoffFactorMilli::<Runtime>::insert(NET, self.cutoff_milli);
        s::Tempo::<Runtime>::insert(NET, TEMPO);
        s::LastMechansimStepBlock::<Runtime>::insert(NET, self.last_step);
        s::CommitRevealWeightsEnabled::<Runtime>::insert(NET, self.commit_reveal);
        s::PendingServerEmission::<Runtime>::insert(NET, self.server);
        s::PendingValidatorEmission::<Runtime>::insert(NET, self.validator);
        for (mecid, m) in (0..count).zip(&self.mechanisms) {
            let index = NET.index(mecid);
            s::LastUpdate::<Runtime>::insert(index, &m.last_update);
            s::ConsensusByMechanism::<Runtime>::insert(index, &m.previous_consensus);
            for uid in 0..n {
                let slot = u16::try_from(uid).unwrap();
                s::Weights::<Runtime>::insert(index, slot, &m.weights[uid]);
                s::Bonds::<Runtime>::insert(index, slot, &m.bonds[uid]);
                if let Some(block) = m.commits[uid] {
                    let commit = (sp_core::H256::zero(), s::SubnetEpochIndex::<Runtime>::get(NET), block, 0);
                    let queue = std::collections::VecDeque::from([commit]);
                    s::WeightCommits::<Runtime>::insert(index, Self::hotkey(uid), queue);
                }
            }
        }
    }

    fn actual(&self) -> Outcome {
        let n = self.n();
        on_empty_chain(|| {
            self.write();
            System::set_block_number(u32::try_from(BLOCK).unwrap());
            SubtensorModule::on_initialize(u32::try_from(BLOCK).unwrap());
            assert_eq!(s::LastEpochBlock::<Runtime>::get(NET), BLOCK, "there was no epoch");
            let indices = (0..s::MechanismCountCurrent::<Runtime>::get(NET)).map(|mecid| NET.index(mecid));
            let bonds = |index: u16| -> Vec<Vec<(u16, u16)>> {
                (0..u16::try_from(n).unwrap()).map(|uid| s::Bonds::<Runtime>::get(index, uid)).collect()
            };
            Outcome {
                consensus: s::Consensus::<Runtime>::get(NET),
                validator_trust: s::ValidatorTrust::<Runtime>::get(NET),
                dividends: s::Dividends::<Runtime>::get(NET),
                stake_weight: s::StakeWeight::<Runtime>::get(NET),
                permits: s::ValidatorPermit::<Runtime>::get(NET),
                active: s::Active::<Runtime>::get(NET),
                emission: s::Emission::<Runtime>::get(NET),
                incentive: indices.clone().map(s::Incentive::<Runtime>::get).collect(),
                bonds: indices.map(bonds).collect(),
            }
        })
    }
}

fn on_empty_chain<R>(run: impl FnOnce() -> R) -> R {
    let genesis: Genesis = serde_json::from_value(serde_json::json!({ "subnets": [] })).unwrap();
    let state = genesis.build(BlockTime::Instant).unwrap();
    let top = state.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    TestExternalities::new(Storage { top, ..Storage::default() }).execute_with(run)
}

// ---- random subnets ----

fn row(n: usize) -> impl Strategy<Value = Vec<(u16, u16)>> {
    let value = prop_oneof![Just(0), Just(65_535), 0..=65_535u16, 0..5u16];
    prop::collection::vec(prop::option::weighted(0.7, value), n)
        .prop_map(|row| (0u16..).zip(row).filter_map(|(uid, value)| Some((uid, value?))).collect())
}

fn mechanism(n: usize) -> impl Strategy<Value = Mechanism> {
    let block = prop_oneof![Just(0), 0..BLOCK, 80..BLOCK];
    (
        prop::collection::vec(row(n), n),
        prop::collection::vec(row(n), n),
        prop::collection::vec(block, n),
        prop::collection::vec(prop::option::weighted(0.2, 0..BLOCK), n),
        prop::collection::vec(any::<u16>(), n),
    )
        .prop_map(|(weights, bonds, last_update, commits, previous_consensus)| Mechanism {
            weights,
            bonds,
            last_update,
            commits,
            previous_consensus,
        })
}

prop_compose! {
    fn neurons()(n in 1usize..7)(
        stake in prop::collection::vec(prop_oneof![Just(0), 1..4u64, 1..1_000_000_000_000_000u64], n),
        registered_at in prop::collection::vec(prop_oneof![4 => Just(0), 1 => 0..BLOCK], n),
        permits in prop::collection::vec(prop::bool::weighted(0.8), n),
        owner in prop::option::of(0..u16::try_from(n).unwrap()),
        mechanisms in prop::collection::vec(mechanism(n), 1..3),
    ) -> (Vec<u64>, Vec<u64>, Vec<bool>, Option<u16>, Vec<Mechanism>) {
        (stake, registered_at, permits, owner, mechanisms)
    }
}

prop_compose! {
    fn subnet()(
        (stake, registered_at, permits, owner, mechanisms) in neurons(),
        first in prop::option::of(0..=65_535u16),
        threshold in prop_oneof![Just(0), 0..1_000_000_000u64],
        max_validators in 0..5u16,
        kappa in prop_oneof![Just(32_767), Just(0), Just(65_535), any::<u16>()],
        penalty in prop_oneof![Just(0), Just(65_535), any::<u16>()],
        moving_average in prop_oneof![Just(900_000), 0..=1_000_000u64],
        yuma3 in prop::bool::weighted(0.7),
        liquid in prop::option::of((0..40_000u16, 40_000..=65_535u16, 0..2000i16)),
        mode in prop_oneof![Just(ConsensusMode::Current), Just(ConsensusMode::Previous), Just(ConsensusMode::Auto)],
        cutoff_milli in prop_oneof![Just(20_000), 0..20_000u32],
        last_step in prop_oneof![Just(0), Just(90), 0..BLOCK - 1],
        commit_reveal in any::<bool>(),
        (server, validator) in prop_oneof![Just((0, 0)), (0..1_000_000_000_000u64, 0..1_000_000_000_000u64)],
    ) -> Subnet {
        let split = first.filter(|_| mechanisms.len() == 2).map(|first| vec![first, 65_535 - first]);
        Subnet {
            stake, threshold, registered_at, permits, owner, mechanisms, split, max_validators, kappa, penalty,
            moving_average, yuma3, liquid, mode, cutoff_milli, last_step, commit_reveal, server, validator,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn an_epoch_of_any_subnet_is_that_of_the_formulas(subnet in subnet()) {
        let (mut actual, expected) = (subnet.actual(), subnet.expected());
        // Emission is an amount, not a share: the last rao is rounded where the fraction is not.
        for (got, exact) in actual.emission.iter_mut().zip(&expected.emission) {
            prop_assert!(got.abs_diff(*exact) <= 2, "{got} of {exact} rao");
            *got = *exact;
        }
        prop_assert_eq!(actual, expected);
    }
}

#[test]
fn the_oracle_knows_what_a_minority_is() {
    // 60 % weigh neuron 3 and 40 % neuron 4: only the first has consensus.
    let mut subnet = published(&[3, 3, 4, 0, 0]);
    subnet.mechanisms[0].weights = vec![vec![(3, 1)], vec![(3, 1)], vec![(4, 1)], vec![], vec![]];
    let outcome = subnet.expected();
    assert_eq!(outcome.consensus, [0, 0, 0, 65_535, 0]);
    assert_eq!(outcome.validator_trust, [65_535, 65_535, 0, 0, 0]);
    assert_eq!(outcome.dividends, [32_767, 32_767, 0, 0, 0]);
    assert_eq!(outcome.emission, [250_000_000, 250_000_000, 0, 500_000_000, 0]);
}

// ---- vectors that the public chain's tests publish ----

/// A subnet on which everyone is active and old.
fn published(stake: &[u64]) -> Subnet {
    let n = stake.len();
    Subnet {
        stake: stake.iter().map(|stake| stake * 1_000_000_000).collect(),
        threshold: 0,
        registered_at: vec![0; n],
        permits: vec![true; n],
        owner: None,
        mechanisms: vec![Mechanism {
            weights: vec![Vec::new(); n],
            bonds: vec![Vec::new(); n],
            last_update: vec![BLOCK - 1; n],
            commits: vec![None; n],
            previous_consensus: vec![0; n],
        }],
        split: None,
        max_validators: 64,
        kappa: 32_767,
        penalty: 65_535,
        moving_average: 900_000,
        yuma3: false,
        liquid: None,
        mode: ConsensusMode::Auto,
        cutoff_milli: 13_889,
        last_step: 90,
        commit_reveal: false,
        server: 500_000_000,
        validator: 500_000_000,
    }
}

/// Bonds of Yuma 2 over seven epochs (`test_bonds`): per epoch what the validators weigh, the bonds before on neurons
/// 4 and 7, those after on neuron 7, the dividends in 10^-10.
///
/// The chain's fixed point loses a step now and then, so every epoch starts from the published bonds of the one before
/// and may end one step above.
#[test]
fn bonds_of_yuma_2_are_those_published() {
    const ALL: &[(u16, u16)] = &[(4, 16_383), (5, 32_767), (6, 49_149), (7, 65_535)];
    const LAST: &[(u16, u16)] = &[(7, 65_535)];
    const SELF: &[(u16, u16)] = &[];
    type Step = ([&'static [(u16, u16)]; 4], [u16; 4], [u16; 4], [u16; 4], [u64; 4]);
    let steps: [Step; 7] = [
        (
            [ALL; 4],
            [0; 4],
            [0; 4],
            [16_383, 32_767, 49_151, 65_535],
            [999_999_978, 1_999_999_983, 3_000_000_012, 4_000_000_022],
        ),
        (
            [SELF, ALL, ALL, ALL],
            [16_383, 32_767, 49_151, 65_535],
            [16_383, 32_767, 49_151, 65_535],
            [14_582, 32_767, 49_151, 65_535],
            [899_967_032, 2_022_211_233, 3_033_344_320, 4_044_477_410],
        ),
        (
            [SELF, SELF, ALL, ALL],
            [14_582, 32_767, 49_151, 65_535],
            [14_582, 32_767, 49_151, 65_535],
            [12_603, 28_321, 49_151, 65_535],
            [809_936_118, 1_819_995_677, 3_158_592_721, 4_211_475_480],
        ),
        (
            [SELF, SELF, SELF, ALL],
            [12_603, 28_321, 49_151, 65_535],
            [12_603, 28_321, 49_151, 65_535],
            [12_602, 28_320, 49_150, 65_535],
            [0; 4],
        ),
        (
            [SELF, SELF, LAST, ALL],
            [12_602, 28_320, 49_150, 65_535],
            [12_602, 28_320, 49_150, 65_535],
            [10_951, 24_609, 49_150, 65_535],
            [728_874_663, 1_637_972_582, 3_271_309_866, 4_361_842_885],
        ),
        (
            [SELF, SELF, LAST, ALL],
            [12_601, 28_319, 49_149, 65_535],
            [10_951, 24_609, 49_150, 65_535],
            [9_559, 21_482, 49_150, 65_535],
            [655_988_548, 1_474_132_247, 3_372_762_585, 4_497_116_616],
        ),
        (
            [SELF, SELF, LAST, ALL],
            [12_600, 28_318, 49_148, 65_535],
            [9_559, 21_482, 49_150, 65_535],
            [8_376, 18_824, 49_150, 65_535],
            [590_361_361, 1_326_722_752, 3_464_062_694, 4_618_853_189],
        ),
    ];
    for (epoch, (weights, others, before, after, dividends)) in steps.into_iter().enumerate() {
        let mut subnet = published(&[1, 2, 3, 4, 0, 0, 0, 0]);
        let m = &mut subnet.mechanisms[0];
        for uid in 0..4 {
            m.weights[uid] = weights[uid].to_vec();
            if before != [0; 4] {
                m.bonds[uid] = vec![(4, others[uid]), (5, others[uid]), (6, others[uid]), (7, before[uid])];
            }
        }
        let got = subnet.actual();
        for uid in 0..4 {
            let bond = got.bonds[0][uid].iter().find(|(column, _)| *column == 7).map_or(0, |(_, bond)| *bond);
            assert!(
                bond >= after[uid] && bond - after[uid] <= 1,
                "epoch {epoch}, validator {uid}: {bond} of {}",
                after[uid]
            );
            let expected = dividends[uid] as f64 / 1e10 * 65_535.0;
            assert!((f64::from(got.dividends[uid]) - expected).abs() <= 1.0, "epoch {epoch}: {:?}", got.dividends);
        }
    }
}

/// Weights of one validator on neurons 3, 4 and so on, in 65535ths.
type Row = &'static [u16];

/// Epochs of a scenario of Yuma 3: when the weights change, and what is published of bonds and dividends.
struct Scenario {
    stake: &'static [u64],
    liquid: bool,
    /// From this epoch on, weights of the three validators.
    weights: &'static [(usize, [Row; 3])],
    /// Bonds with the neurons after the validators, and dividends of the validators, epoch by epoch.
    epochs: &'static [([[f64; 2]; 3], [f64; 3])],
}

const FIRST: Row = &[65_535, 0];
const SECOND: Row = &[0, 65_535];

impl Scenario {
    /// Runs the runtime from epoch to epoch on its own bonds; the published numbers have four digits.
    fn check(&self) {
        let mut subnet = published(self.stake);
        (subnet.yuma3, subnet.penalty, subnet.moving_average, subnet.max_validators) = (true, 0, 975_000, 3);
        subnet.liquid = self.liquid.then_some((6_553, 19_660, 1_000));
        for (epoch, (bonds, dividends)) in self.epochs.iter().enumerate() {
            if let Some((_, rows)) = self.weights.iter().rev().find(|(from, _)| *from <= epoch) {
                for (uid, row) in rows.iter().enumerate() {
                    subnet.mechanisms[0].weights[uid] = (3u16..).zip(row.iter().copied()).collect();
                }
            }
            let got = subnet.actual();
            for uid in 0..3 {
                for (column, expected) in (3u16..).zip(bonds[uid]) {
                    let bond = got.bonds[0][uid].iter().find(|(at, _)| *at == column).map_or(0, |(_, bond)| *bond);
                    let bond = f64::from(bond) / 65_535.0;
                    assert!((bond - expected).abs() < 1e-3, "epoch {epoch}: bond {uid}-{column} {bond} of {expected}");
                }
                let got = f64::from(got.dividends[uid]) / 65_535.0;
                assert!((got - dividends[uid]).abs() < 1e-3, "epoch {epoch}: dividends {got} of {}", dividends[uid]);
            }
            subnet.mechanisms[0].bonds.clone_from(&got.bonds[0]);
        }
    }
}

#[test]
fn bonds_of_yuma_3_are_those_published_when_the_large_validator_moves_first() {
    Scenario {
        stake: &[8, 1, 1, 0, 0],
        liquid: true,
        weights: &[
            (0, [FIRST, FIRST, FIRST]),
            (1, [SECOND, FIRST, FIRST]),
            (2, [SECOND, SECOND, FIRST]),
            (3, [SECOND, SECOND, SECOND]),
        ],
        epochs: &[
            ([[0.1013, 0.0], [0.1013, 0.0], [0.1013, 0.0]], [0.8, 0.1, 0.1]),
            ([[0.0908, 0.1013], [0.3697, 0.0], [0.3697, 0.0]], [1.0, 0.0, 0.0]),
            ([[0.0815, 0.1924], [0.3170, 0.1013], [0.5580, 0.0]], [0.9382, 0.0618, 0.0]),
            ([[0.0731, 0.2742], [0.2765, 0.1924], [0.4306, 0.1013]], [0.8819, 0.0773, 0.0407]),
            ([[0.0656, 0.3478], [0.2435, 0.2742], [0.3589, 0.1924]], [0.8564, 0.0844, 0.0592]),
            ([[0.0588, 0.4139], [0.2157, 0.3478], [0.3089, 0.2742]], [0.8418, 0.0884, 0.0697]),
        ],
    }
    .check();
}

#[test]
fn bonds_of_yuma_3_are_those_published_when_the_large_validator_moves_last() {
    Scenario {
        stake: &[8, 1, 1, 0, 0],
        liquid: true,
        weights: &[
            (0, [FIRST, FIRST, FIRST]),
            (1, [FIRST, SECOND, FIRST]),
            (2, [FIRST, SECOND, SECOND]),
            (3, [SECOND, SECOND, SECOND]),
        ],
        epochs: &[
            ([[0.1013, 0.0], [0.1013, 0.0], [0.1013, 0.0]], [0.8, 0.1, 0.1]),
            ([[0.1924, 0.0], [0.0908, 0.2987], [0.1924, 0.0]], [0.8446, 0.0498, 0.1056]),
            ([[0.2742, 0.0], [0.0815, 0.5081], [0.1715, 0.2987]], [0.8966, 0.0333, 0.0701]),
            ([[0.2416, 0.1013], [0.0731, 0.5580], [0.1531, 0.3697]], [0.4663, 0.3210, 0.2127]),
            ([[0.2141, 0.1924], [0.0656, 0.6028], [0.1369, 0.4336]], [0.5976, 0.2340, 0.1683]),
            ([[0.1903, 0.2742], [0.0588, 0.6430], [0.1225, 0.4910]], [0.6592, 0.1932, 0.1475]),
        ],
    }
    .check();
}

#[test]
fn bonds_of_yuma_3_are_those_published_when_one_validator_errs_for_an_epoch() {
    let liquid: &[_] = &[
        ([[0.1013, 0.0], [0.1013, 0.0], [0.1013, 0.0]], [0.33, 0.33, 0.34]),
        ([[0.1924, 0.0], [0.1924, 0.0], [0.1924, 0.0]], [0.33, 0.33, 0.34]),
        ([[0.2742, 0.0], [0.2742, 0.0], [0.1715, 0.2987]], [0.3782, 0.3782, 0.2436]),
        ([[0.3478, 0.0], [0.3478, 0.0], [0.2554, 0.2618]], [0.3628, 0.3628, 0.2745]),
        ([[0.4139, 0.0], [0.4139, 0.0], [0.3309, 0.2312]], [0.3541, 0.3541, 0.2917]),
        ([[0.4733, 0.0], [0.4733, 0.0], [0.3987, 0.2051]], [0.3487, 0.3487, 0.3026]),
    ];
    let fixed: &[_] = &[
        ([[0.0250, 0.0], [0.0250, 0.0], [0.0250, 0.0]], [0.33, 0.33, 0.34]),
        ([[0.0494, 0.0], [0.0494, 0.0], [0.0494, 0.0]], [0.33, 0.33, 0.34]),
        ([[0.0731, 0.0], [0.0731, 0.0], [0.0481, 0.0250]], [0.3734, 0.3734, 0.2532]),
        ([[0.0963, 0.0], [0.0963, 0.0], [0.0719, 0.0244]], [0.3611, 0.3611, 0.2779]),
        ([[0.1189, 0.0], [0.1189, 0.0], [0.0951, 0.0238]], [0.3541, 0.3541, 0.2919]),
        ([[0.1409, 0.0], [0.1409, 0.0], [0.1178, 0.0232]], [0.3495, 0.3495, 0.3009]),
    ];
    for (with_liquid, epochs) in [(true, liquid), (false, fixed)] {
        Scenario {
            stake: &[33, 33, 34, 0, 0],
            liquid: with_liquid,
            weights: &[(0, [FIRST, FIRST, FIRST]), (2, [FIRST, FIRST, SECOND]), (3, [FIRST, FIRST, FIRST])],
            epochs,
        }
        .check();
    }
}

#[test]
fn a_commitment_may_reset_the_bonds_with_who_makes_it() {
    on_empty_chain(|| {
        let mut subnet = published(&[8, 1, 1, 0, 0]);
        for uid in 0..3 {
            subnet.mechanisms[0].bonds[uid] = vec![(3, 5_000), (4, 7_000)];
        }
        subnet.write();
        let reset = || {
            let info = CommitmentInfo { fields: vec![Data::ResetBondsFlag].try_into().unwrap() };
            let origin = RuntimeOrigin::signed(Subnet::hotkey(3));
            commitments::Pallet::<Runtime>::set_commitment(origin, NET, Box::new(info)).unwrap();
            s::Bonds::<Runtime>::get(NET.index(0), 0)
        };
        assert_eq!(reset(), [(3, 5_000), (4, 7_000)]);
        s::BondsResetOn::<Runtime>::insert(NET, true);
        assert_eq!(reset(), [(4, 7_000)]);
    });
}
