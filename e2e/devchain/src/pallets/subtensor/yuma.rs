//! Yuma consensus of one mechanism: from weights and stake to consensus, incentive, dividends and bonds.
//!
//! Pure: no storage, no clock. The public chain computes in fixed point of 32 fractional bits and loses its last digits
//! on the way; this module uses `f64`, whose 52 bits leave less error than the 16 bits that are stored, and which is
//! the same on every machine for `+ - * /`. What is compared rather than scaled, such as stake with the majority, stays
//! in whole numbers: a tie is a tie. `tests/yuma.rs` holds all of it against exact fractions.

/// One row of a sparse matrix as it is stored: column and value, columns ascending.
pub(super) type StoredRow = Vec<(usize, u16)>;

/// One row of a sparse matrix: column and value, columns ascending. A weight that was set to 0 is an entry.
pub(super) type Row = Vec<(usize, f64)>;

/// Largest value of a `u16`, which stands for 1.
const ONE: f64 = 65_535.0;

/// What an epoch is computed from. Every vector has one element per uid.
#[derive(Debug, Clone)]
pub(super) struct Input {
    /// Stake in rao; 0 where it does not count.
    pub(super) stake: Vec<u64>,
    /// Whether the last weights are recent.
    pub(super) active: Vec<bool>,
    /// Permits given by the last epoch; the owner's neuron has one always.
    pub(super) permits: Vec<bool>,
    /// Slot of the owner, whose weight on itself counts.
    pub(super) owner: Option<usize>,
    /// Weights as stored.
    pub(super) weights: Vec<StoredRow>,
    /// Bonds as stored.
    pub(super) bonds: Vec<StoredRow>,
    /// Block of the last weights.
    pub(super) last_update: Vec<u64>,
    /// Block of the oldest commit that may still be revealed; the largest number where there is none.
    pub(super) committed_at: Vec<u64>,
    /// Block of registration.
    pub(super) registered_at: Vec<u64>,
    /// First block after the epoch before this one: bonds with those who came then or later are void.
    pub(super) last_tempo: u64,
    /// Parameters of the subnet.
    pub(super) params: Params,
}

/// Parameters of the subnet.
#[derive(Debug, Clone)]
pub(super) struct Params {
    /// Majority that the consensus needs, in 65535ths.
    pub(super) kappa: u16,
    /// How far clipped weights replace raw ones in bonds, from 0 to 1.
    pub(super) bonds_penalty: f64,
    /// Share of bonds replaced per epoch, from 0 to 1.
    pub(super) bonds_rate: f64,
    /// Rates per pair instead of `bonds_rate`; without effect on Yuma 2.
    pub(super) liquid_alpha: Option<LiquidAlpha>,
    /// Bonds per pair instead of per column.
    pub(super) yuma3: bool,
}

/// Bounds and steepness of the rate at which a bond moves.
#[derive(Debug, Clone)]
pub(super) struct LiquidAlpha {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) steepness: f64,
    /// Consensus that weights are compared with; that of this epoch when absent.
    pub(super) consensus: Option<Vec<f64>>,
}

/// What an epoch yields. Vectors are normalised to a sum of 1 unless all zero.
#[derive(Debug, Clone)]
pub(super) struct Output {
    pub(super) stake: Vec<f64>,
    pub(super) active_stake: Vec<f64>,
    pub(super) consensus: Vec<f64>,
    pub(super) validator_trust: Vec<f64>,
    pub(super) incentive: Vec<f64>,
    pub(super) dividends: Vec<f64>,
    /// Bonds in the form that is stored, from 0 to 1.
    pub(super) bonds: Vec<Row>,
}

/// Computes one epoch.
pub(super) fn epoch(input: &Input) -> Output {
    let counts = |uid: usize| input.active[uid] && input.permits[uid];
    let counted: Vec<u64> =
        input.stake.iter().enumerate().map(|(uid, stake)| if counts(uid) { *stake } else { 0 }).collect();
    let active_stake = shares(&counted);

    let weights = countable_weights(input);
    let consensus = consensus(&weights, &counted, input.params.kappa);
    let clipped = clip(&weights, &consensus);
    let validator_trust = clipped.iter().map(|row| row.iter().map(|(_, weight)| weight).sum()).collect();
    let mut incentive = vec![0.0; input.stake.len()];
    for (row, stake) in clipped.iter().zip(&active_stake) {
        for (column, weight) in row {
            incentive[*column] += stake * weight;
        }
    }
    normalize(&mut incentive);

    let for_bonds = weights_for_bonds(weights, clipped, &consensus, input.params.bonds_penalty);
    let (bonds, dividends) = if input.params.yuma3 {
        bonds_per_pair(input, &for_bonds, &consensus, &active_stake, &incentive)
    } else {
        bonds_per_column(input, &for_bonds, &active_stake, &incentive)
    };
    Output { stake: shares(&input.stake), active_stake, consensus, validator_trust, incentive, dividends, bonds }
}

/// Scales a vector to a sum of 1; a zero vector stays.
pub(super) fn normalize(values: &mut [f64]) {
    let sum: f64 = values.iter().sum();
    if sum > 0.0 {
        for value in values {
            *value /= sum;
        }
    }
}

/// What each amount is of their sum. The sum is exact, so equal amounts have equal shares.
#[expect(clippy::cast_precision_loss, reason = "a share needs no more digits than f64 has")]
pub(super) fn shares(amounts: &[u64]) -> Vec<f64> {
    let sum: u128 = amounts.iter().copied().map(u128::from).sum();
    amounts.iter().map(|amount| if sum == 0 { 0.0 } else { *amount as f64 / sum as f64 }).collect()
}

/// Cuts every weight down to the consensus. A weight on a column without consensus is gone, not 0, which matters to
/// bonds of liquid alpha.
fn clip(weights: &[Row], consensus: &[f64]) -> Vec<Row> {
    let clipped = |row: &Row| {
        let kept = row.iter().filter(|(column, weight)| *weight <= consensus[*column] || consensus[*column] > 0.0);
        kept.map(|(column, weight)| (*column, weight.min(consensus[*column]))).collect()
    };
    weights.iter().map(clipped).collect()
}

/// What bonds follow: something between the weights and the clipped weights.
fn weights_for_bonds(weights: Vec<Row>, clipped: Vec<Row>, consensus: &[f64], penalty: f64) -> Vec<Row> {
    if penalty <= 0.0 {
        return weights;
    }
    if penalty >= 1.0 {
        return clipped;
    }
    let between = |row: Row| {
        let value =
            |(column, weight): (usize, f64)| (column, weight + penalty * (weight.min(consensus[column]) - weight));
        row.into_iter().map(value).filter(|(_, weight)| *weight > 0.0).collect()
    };
    weights.into_iter().map(between).collect()
}

/// Weights of permitted rows, without those on oneself and on neurons that came after the weights were set or
/// committed, each row normalised.
fn countable_weights(input: &Input) -> Vec<Row> {
    let counts = |uid: usize, column: usize| {
        let registered_at = input.registered_at[column];
        input.permits[uid]
            && (uid != column || input.owner == Some(uid))
            && input.last_update[uid] > registered_at
            && input.committed_at[uid] >= registered_at
    };
    let row = |(uid, stored): (usize, &StoredRow)| -> Row {
        let kept = || stored.iter().filter(|(column, _)| counts(uid, *column));
        let sum: u32 = kept().map(|(_, value)| u32::from(*value)).sum();
        // A row of zeros stays one.
        kept().map(|(column, value)| (*column, f64::from(*value) / f64::from(sum.max(1)))).collect()
    };
    input.weights.iter().enumerate().map(row).collect()
}

/// Per column, the weight that validators with a majority of the stake set at least.
fn consensus(weights: &[Row], stake: &[u64], kappa: u16) -> Vec<f64> {
    let total: u128 = stake.iter().copied().map(u128::from).sum();
    let minority = u128::from(u16::MAX - kappa) * total;
    let exceeds_minority = |below: u128| below * u128::from(u16::MAX) > minority;
    let mut columns: Vec<Vec<(f64, u128)>> = vec![Vec::new(); stake.len()];
    for (row, stake) in weights.iter().zip(stake) {
        if *stake > 0 {
            for (column, weight) in row {
                columns[*column].push((*weight, u128::from(*stake)));
            }
        }
    }
    let median = |mut column: Vec<(f64, u128)>| {
        column.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Validators without an entry set zero: their stake lies below every entry.
        let mut below = total - column.iter().map(|(_, stake)| stake).sum::<u128>();
        if exceeds_minority(below) {
            return 0.0;
        }
        let mut largest = 0.0;
        for (weight, stake) in column {
            below += stake;
            largest = weight;
            if exceeds_minority(below) {
                break;
            }
        }
        // With a kappa of 0 the minority is everyone, whom nothing exceeds: the largest weight stands.
        largest
    };
    columns.into_iter().map(median).collect()
}

/// Old bonds in 65535ths, without those with neurons that were registered since the last epoch.
fn valid_bonds(input: &Input) -> Vec<Row> {
    let valid = |column: usize| input.last_tempo > input.registered_at[column];
    let row = |row: &StoredRow| {
        let kept = row.iter().filter(|(column, bond)| *bond > 0 && valid(*column));
        kept.map(|(column, bond)| (*column, f64::from(*bond) / ONE)).collect()
    };
    input.bonds.iter().map(row).collect()
}

/// What bonds earn of the incentives.
fn earned(bonds: &[Row], incentive: &[f64]) -> Vec<f64> {
    let earned = |row: &Row| row.iter().map(|(column, bond)| bond * incentive[*column]).sum();
    bonds.iter().map(earned).collect()
}

/// Yuma 3: each bond is a moving average of the weight of its pair; dividends follow from the share that a validator
/// has of the bonds with a neuron, from its incentive, and from the validator's stake.
fn bonds_per_pair(
    input: &Input,
    weights: &[Row],
    consensus: &[f64],
    stake: &[f64],
    incentive: &[f64],
) -> (Vec<Row>, Vec<f64>) {
    let old = valid_bonds(input);
    let liquid = input.params.liquid_alpha.as_ref();
    let reference = liquid.and_then(|liquid| liquid.consensus.as_deref()).unwrap_or(consensus);
    let bonds = match liquid.filter(|_| reference.iter().any(|value| *value > 0.0)) {
        Some(liquid) => liquid_average(liquid, weights, &old, reference),
        None => moving_average(input.params.bonds_rate, weights, &old),
    };
    let mut of_column = bonds.clone();
    normalize_columns(&mut of_column);
    let mut dividends: Vec<f64> =
        earned(&of_column, incentive).into_iter().zip(stake).map(|(earned, stake)| earned * stake).collect();
    normalize(&mut dividends);
    (bonds, dividends)
}

/// Yuma 2: bonds are stake-weighted and share out a column; dividends follow from bonds and incentive.
fn bonds_per_column(input: &Input, weights: &[Row], stake: &[f64], incentive: &[f64]) -> (Vec<Row>, Vec<f64>) {
    let mut old = valid_bonds(input);
    normalize_columns(&mut old);
    let bought = |(row, stake): (&Row, &f64)| row.iter().map(|(column, weight)| (*column, weight * stake)).collect();
    let mut delta: Vec<Row> = weights.iter().zip(stake).map(bought).collect();
    normalize_columns(&mut delta);
    let mut bonds = moving_average(input.params.bonds_rate, &delta, &old);
    normalize_columns(&mut bonds);
    let mut dividends = earned(&bonds, incentive);
    normalize(&mut dividends);
    // Stored with the largest bond with a neuron at 1, which keeps the digits of small ones.
    scale_columns(&mut bonds, f64::max);
    (bonds, dividends)
}

/// Scales every column to a sum of 1.
fn normalize_columns(rows: &mut [Row]) {
    scale_columns(rows, |sum, value| sum + value);
}

/// Divides every column by what its values fold to; a column of zeros stays.
fn scale_columns(rows: &mut [Row], fold: impl Fn(f64, f64) -> f64) {
    let mut by = vec![0.0; rows.len()];
    for row in rows.iter() {
        for (column, value) in row {
            by[*column] = fold(by[*column], *value);
        }
    }
    for row in rows.iter_mut() {
        for (column, value) in row.iter_mut().filter(|(column, _)| by[*column] > 0.0) {
            *value /= by[*column];
        }
    }
}

/// Moves every bond towards its weight at one rate.
fn moving_average(rate: f64, new: &[Row], old: &[Row]) -> Vec<Row> {
    let moved = |(new, old): (&Row, &Row)| {
        let pairs = merge(new, old).into_iter();
        let pairs = pairs.map(|(column, (new, old))| (column, rate * new + (1.0 - rate) * old));
        pairs.filter(|(_, bond)| *bond > 0.0).collect()
    };
    new.iter().zip(old).map(moved).collect()
}

/// Moves every bond towards its weight at a rate of its own. As on the public chain a bond with a neuron that is no
/// longer weighed at all ends at once, while one whose weight was set to 0 decays.
fn liquid_average(liquid: &LiquidAlpha, new: &[Row], old: &[Row], consensus: &[f64]) -> Vec<Row> {
    let moved = |(new, old): (&Row, &Row)| {
        let weighed = |column: usize| new.binary_search_by_key(&column, |(column, _)| *column).is_ok();
        let pairs = merge(new, old).into_iter().filter(|(column, _)| weighed(*column));
        let pairs = pairs.map(|(column, (new, old))| {
            let rate = liquid.rate(consensus.get(column).copied().unwrap_or(0.0), new, old);
            (column, ((1.0 - rate) * old + rate * new).min(1.0))
        });
        pairs.filter(|(_, bond)| *bond > 0.0).collect()
    };
    new.iter().zip(old).map(moved).collect()
}

/// Both values, new and old, of each column that either row has.
fn merge(new: &Row, old: &Row) -> std::collections::BTreeMap<usize, (f64, f64)> {
    let mut pairs: std::collections::BTreeMap<usize, (f64, f64)> = std::collections::BTreeMap::new();
    for (column, value) in new {
        pairs.entry(*column).or_default().0 = *value;
    }
    for (column, value) in old {
        pairs.entry(*column).or_default().1 = *value;
    }
    pairs
}

impl LiquidAlpha {
    /// Bonds follow fast when a validator buys above the consensus or sells what it no longer weighs.
    fn rate(&self, consensus: f64, weight: f64, bond: f64) -> f64 {
        let difference = if weight >= bond { weight - consensus } else { bond - weight };
        // Clamped as on the public chain, whose exponential would overflow beyond.
        let exponent = (-self.steepness * (difference.clamp(0.0, 1.0) - 0.5)).clamp(-20.0, 20.0);
        let sigmoid = 1.0 / (1.0 + exponent.exp());
        (self.low + sigmoid * (self.high - self.low)).clamp(self.low, self.high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(yuma3: bool) -> Params {
        Params { kappa: 32_767, bonds_penalty: 1.0, bonds_rate: 0.1, liquid_alpha: None, yuma3 }
    }

    fn input(stake: &[u64], weights: Vec<StoredRow>, yuma3: bool) -> Input {
        let n = stake.len();
        Input {
            stake: stake.to_vec(),
            active: vec![true; n],
            permits: stake.iter().map(|stake| *stake > 0).collect(),
            owner: None,
            weights,
            bonds: vec![StoredRow::new(); n],
            last_update: vec![10; n],
            committed_at: vec![u64::MAX; n],
            registered_at: vec![1; n],
            last_tempo: 5,
            params: params(yuma3),
        }
    }

    fn close(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        let near = got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-12);
        assert!(near, "got {got:?}, expected {expected:?}");
    }

    #[test]
    fn a_minority_cannot_raise_its_favourite() {
        // Validators 0 and 1 hold 60 % and weigh neuron 3; validator 2 alone weighs neuron 4.
        let weights = vec![vec![(3, 1)], vec![(3, 1)], vec![(4, 1)], vec![], vec![]];
        let output = epoch(&input(&[3, 3, 4, 0, 0], weights, true));
        close(&output.consensus, &[0.0, 0.0, 0.0, 1.0, 0.0]);
        close(&output.incentive, &[0.0, 0.0, 0.0, 1.0, 0.0]);
        close(&output.validator_trust, &[1.0, 1.0, 0.0, 0.0, 0.0]);
        close(&output.dividends, &[0.5, 0.5, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn both_kinds_of_bonds_pay_by_stake_when_all_agree() {
        for yuma3 in [true, false] {
            let weights = vec![vec![(2, 1), (3, 3)], vec![(2, 1), (3, 3)], vec![], vec![]];
            let output = epoch(&input(&[1, 3, 0, 0], weights, yuma3));
            close(&output.incentive, &[0.0, 0.0, 0.25, 0.75]);
            close(&output.dividends, &[0.25, 0.75, 0.0, 0.0]);
        }
    }

    #[test]
    fn weights_do_not_count_without_permit_activity_or_on_newcomers() {
        let rows = || vec![vec![(2, 1)], vec![(3, 1)], vec![], vec![]];
        let stake = [1, 1, 0, 0];

        let mut without_permit = input(&stake, rows(), true);
        without_permit.permits[1] = false;
        close(&epoch(&without_permit).incentive, &[0.0, 0.0, 1.0, 0.0]);

        let mut inactive = input(&stake, rows(), true);
        inactive.active[1] = false;
        close(&epoch(&inactive).incentive, &[0.0, 0.0, 1.0, 0.0]);

        let mut newcomer = input(&stake, rows(), true);
        newcomer.registered_at[3] = 10;
        close(&epoch(&newcomer).incentive, &[0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn only_the_owner_may_weigh_itself() {
        let mut input = input(&[1, 0], vec![vec![(0, 1)], vec![]], true);
        close(&epoch(&input).incentive, &[0.0, 0.0]);
        input.owner = Some(0);
        close(&epoch(&input).incentive, &[1.0, 0.0]);
    }

    #[test]
    fn bonds_approach_the_weights_epoch_by_epoch() {
        let mut input = input(&[1, 0], vec![vec![(1, 1)], vec![]], true);
        for (stored, expected) in [(0, 0.1), (6_553, 0.189_993), (12_451, 0.270_991)] {
            input.bonds[0] = vec![(1, stored)];
            let bond = epoch(&input).bonds[0][0].1;
            assert!((bond - expected).abs() < 1e-6, "{bond}");
        }
    }

    #[test]
    fn liquid_alpha_stays_within_its_bounds() {
        let liquid = LiquidAlpha { low: 0.7, high: 0.9, steepness: 10.0, consensus: None };
        assert!((liquid.rate(0.0, 1.0, 0.0) - 0.9).abs() < 0.002);
        assert!((liquid.rate(0.5, 0.5, 0.5) - 0.7).abs() < 0.002);
        assert!((liquid.rate(0.0, 0.5, 0.0) - 0.8).abs() < 1e-12);
    }
}
