//! Yuma consensus of one mechanism: from weights and stake to consensus, incentive, dividends and bonds.
//!
//! Pure: no storage, no clock. The public chain computes in fixed point; this module uses `f64`, whose 52 bits leave
//! less error than the 16 bits that are stored, and which is the same on every machine for `+ - * /`.

/// One row of a sparse matrix: column and value, columns ascending.
pub(super) type Row = Vec<(usize, f64)>;

/// What an epoch is computed from. Every vector has one element per uid.
#[derive(Debug, Clone)]
pub(super) struct Input {
    /// Stake in any unit; 0 where it does not count.
    pub(super) stake: Vec<f64>,
    /// Whether the last weights are recent.
    pub(super) active: Vec<bool>,
    /// Permits given by the last epoch.
    pub(super) permits: Vec<bool>,
    /// Slot of the owner, whose weight on itself counts.
    pub(super) owner: Option<usize>,
    /// Weights as stored.
    pub(super) weights: Vec<Row>,
    /// Bonds as stored, from 0 to 1.
    pub(super) bonds: Vec<Row>,
    /// Block of the last weights.
    pub(super) last_update: Vec<u64>,
    /// Block of registration.
    pub(super) registered_at: Vec<u64>,
    /// Block of the epoch before this one: bonds with those who came later are void.
    pub(super) last_tempo: u64,
    /// Parameters of the subnet.
    pub(super) params: Params,
}

/// Parameters of the subnet.
#[derive(Debug, Clone)]
pub(super) struct Params {
    /// Majority that the consensus needs, from 0 to 1.
    pub(super) kappa: f64,
    /// How far clipped weights replace raw ones in bonds, from 0 to 1.
    pub(super) bonds_penalty: f64,
    /// Share of bonds replaced per epoch, from 0 to 1.
    pub(super) bonds_rate: f64,
    /// Rates per pair instead of `bonds_rate`.
    pub(super) liquid_alpha: Option<LiquidAlpha>,
    /// Bonds per pair instead of per column.
    pub(super) yuma3: bool,
}

/// Bounds and steepness of the rate at which a bond moves.
#[derive(Debug, Clone, Copy)]
pub(super) struct LiquidAlpha {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) steepness: f64,
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
    pub(super) bonds: Vec<Row>,
}

/// Computes one epoch.
pub(super) fn epoch(input: &Input) -> Output {
    let n = input.stake.len();
    let mut stake = input.stake.clone();
    normalize(&mut stake);
    let mut active_stake = stake.clone();
    for (stake, counts) in active_stake.iter_mut().zip(input.active.iter().zip(&input.permits)) {
        if counts != (&true, &true) {
            *stake = 0.0;
        }
    }
    normalize(&mut active_stake);

    let weights = countable_weights(input);
    let consensus = consensus(&weights, &active_stake, input.params.kappa);
    let clipped = map_rows(&weights, |_, column, weight| weight.min(consensus[column]));
    let validator_trust = clipped.iter().map(|row| row.iter().map(|(_, weight)| weight).sum()).collect();
    let mut incentive = vec![0.0; n];
    for (row, stake) in clipped.iter().zip(&active_stake) {
        for (column, weight) in row {
            incentive[*column] += stake * weight;
        }
    }
    normalize(&mut incentive);

    let penalty = input.params.bonds_penalty;
    let for_bonds =
        map_rows(&weights, |_, column, weight| (1.0 - penalty) * weight + penalty * weight.min(consensus[column]));
    let (bonds, dividends) = if input.params.yuma3 {
        bonds_per_pair(input, &for_bonds, &consensus, &active_stake, &incentive)
    } else {
        bonds_per_column(input, &for_bonds, &consensus, &active_stake, &incentive)
    };
    Output { stake, active_stake, consensus, validator_trust, incentive, dividends, bonds }
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

fn map_rows(rows: &[Row], value: impl Fn(usize, usize, f64) -> f64) -> Vec<Row> {
    let map_row = |(uid, row): (usize, &Row)| {
        row.iter().map(|(column, old)| (*column, value(uid, *column, *old))).filter(|(_, new)| *new > 0.0).collect()
    };
    rows.iter().enumerate().map(map_row).collect()
}

/// Weights of permitted rows, without those on oneself and on neurons that came after the weights were set.
fn countable_weights(input: &Input) -> Vec<Row> {
    let counts = |uid: usize, column: usize| {
        input.permits[uid]
            && (uid != column || input.owner == Some(uid))
            && input.last_update[uid] > input.registered_at[column]
    };
    let mut rows = map_rows(&input.weights, |uid, column, weight| if counts(uid, column) { weight } else { 0.0 });
    for row in &mut rows {
        let sum: f64 = row.iter().map(|(_, weight)| weight).sum();
        for (_, weight) in row {
            *weight /= sum;
        }
    }
    rows
}

/// Per column, the weight that validators with a majority of the stake set at least.
fn consensus(weights: &[Row], stake: &[f64], kappa: f64) -> Vec<f64> {
    let total: f64 = stake.iter().sum();
    let minority = (1.0 - kappa) * total;
    let mut columns: Vec<Vec<(f64, f64)>> = vec![Vec::new(); stake.len()];
    for (row, stake) in weights.iter().zip(stake) {
        if *stake > 0.0 {
            for (column, weight) in row {
                columns[*column].push((*weight, *stake));
            }
        }
    }
    let median = |mut column: Vec<(f64, f64)>| {
        column.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Validators without an entry set zero: their stake lies below every entry.
        let mut below = total - column.iter().map(|(_, stake)| stake).sum::<f64>();
        if below > minority {
            return 0.0;
        }
        for (weight, stake) in column {
            below += stake;
            if below > minority {
                return weight;
            }
        }
        0.0
    };
    columns.into_iter().map(median).collect()
}

/// Old bonds, without those with neurons that were registered since the last epoch.
fn valid_bonds(input: &Input) -> Vec<Row> {
    map_rows(&input.bonds, |_, column, bond| if input.last_tempo > input.registered_at[column] { bond } else { 0.0 })
}

/// Yuma 3: each bond is a moving average of the weight of its pair; dividends follow from bonds, incentive and stake.
fn bonds_per_pair(
    input: &Input,
    weights: &[Row],
    consensus: &[f64],
    stake: &[f64],
    incentive: &[f64],
) -> (Vec<Row>, Vec<f64>) {
    let bonds = moving_average(input, weights, &valid_bonds(input), consensus);
    let earned = |row: &Row| row.iter().map(|(column, bond)| bond * incentive[*column]).sum::<f64>();
    let mut dividends: Vec<f64> = bonds.iter().zip(stake).map(|(row, stake)| earned(row) * stake).collect();
    normalize(&mut dividends);
    (bonds, dividends)
}

/// Yuma 2: bonds are stake-weighted and share out a column; dividends follow from bonds and incentive.
fn bonds_per_column(
    input: &Input,
    weights: &[Row],
    consensus: &[f64],
    stake: &[f64],
    incentive: &[f64],
) -> (Vec<Row>, Vec<f64>) {
    let mut old = valid_bonds(input);
    normalize_columns(&mut old);
    let mut delta = map_rows(weights, |uid, _, weight| weight * stake[uid]);
    normalize_columns(&mut delta);
    let mut bonds = moving_average(input, &delta, &old, consensus);
    normalize_columns(&mut bonds);
    let earned = |row: &Row| row.iter().map(|(column, bond)| bond * incentive[*column]).sum::<f64>();
    let mut dividends: Vec<f64> = bonds.iter().map(earned).collect();
    normalize(&mut dividends);
    // Stored with the largest bond of a validator at 1, which keeps the digits of small ones.
    let stored = bonds
        .into_iter()
        .map(|row| {
            let largest = row.iter().map(|(_, bond)| *bond).fold(0.0, f64::max);
            row.into_iter().map(|(column, bond)| (column, bond / largest)).collect()
        })
        .collect();
    (stored, dividends)
}

fn normalize_columns(rows: &mut [Row]) {
    let mut sums = vec![0.0; rows.len()];
    for row in rows.iter() {
        for (column, value) in row {
            sums[*column] += value;
        }
    }
    for row in rows.iter_mut() {
        for (column, value) in row {
            *value /= sums[*column];
        }
    }
}

fn moving_average(input: &Input, new: &[Row], old: &[Row], consensus: &[f64]) -> Vec<Row> {
    let liquid = input.params.liquid_alpha.filter(|_| consensus.iter().any(|value| *value > 0.0));
    let mut rows = Vec::with_capacity(new.len());
    for (new_row, old_row) in new.iter().zip(old) {
        let mut row = Row::new();
        for (column, new, old) in merge(new_row, old_row) {
            let moved = match liquid {
                None => input.params.bonds_rate * new + (1.0 - input.params.bonds_rate) * old,
                Some(liquid) => {
                    let rate = liquid.rate(consensus[column], new, old);
                    let kept = (1.0 - rate) * old;
                    kept + (rate * new).min((1.0 - kept).max(0.0))
                }
            };
            if moved > 0.0 {
                row.push((column, moved));
            }
        }
        rows.push(row);
    }
    rows
}

/// Both values of each column that either row has.
fn merge(new: &Row, old: &Row) -> Vec<(usize, f64, f64)> {
    let mut pairs: std::collections::BTreeMap<usize, (f64, f64)> = std::collections::BTreeMap::new();
    for (column, value) in new {
        pairs.entry(*column).or_default().0 = *value;
    }
    for (column, value) in old {
        pairs.entry(*column).or_default().1 = *value;
    }
    pairs.into_iter().map(|(column, (new, old))| (column, new, old)).collect()
}

impl LiquidAlpha {
    /// Bonds follow fast when a validator buys above the consensus or sells what it no longer weighs.
    fn rate(self, consensus: f64, weight: f64, bond: f64) -> f64 {
        let difference = if weight >= bond { weight - consensus } else { bond - weight };
        let sigmoid = 1.0 / (1.0 + (-self.steepness * (difference.clamp(0.0, 1.0) - 0.5)).exp());
        (self.low + sigmoid * (self.high - self.low)).clamp(self.low, self.high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(yuma3: bool) -> Params {
        Params { kappa: 0.5, bonds_penalty: 1.0, bonds_rate: 0.1, liquid_alpha: None, yuma3 }
    }

    fn input(stake: &[f64], weights: Vec<Row>, yuma3: bool) -> Input {
        let n = stake.len();
        Input {
            stake: stake.to_vec(),
            active: vec![true; n],
            permits: stake.iter().map(|stake| *stake > 0.0).collect(),
            owner: None,
            weights,
            bonds: vec![Row::new(); n],
            last_update: vec![10; n],
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
        let weights = vec![vec![(3, 1.0)], vec![(3, 1.0)], vec![(4, 1.0)], vec![], vec![]];
        let output = epoch(&input(&[3.0, 3.0, 4.0, 0.0, 0.0], weights, true));
        close(&output.consensus, &[0.0, 0.0, 0.0, 1.0, 0.0]);
        close(&output.incentive, &[0.0, 0.0, 0.0, 1.0, 0.0]);
        close(&output.validator_trust, &[1.0, 1.0, 0.0, 0.0, 0.0]);
        close(&output.dividends, &[0.5, 0.5, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn both_kinds_of_bonds_pay_by_stake_when_all_agree() {
        for yuma3 in [true, false] {
            let weights = vec![vec![(2, 1.0), (3, 3.0)], vec![(2, 1.0), (3, 3.0)], vec![], vec![]];
            let output = epoch(&input(&[1.0, 3.0, 0.0, 0.0], weights, yuma3));
            close(&output.incentive, &[0.0, 0.0, 0.25, 0.75]);
            close(&output.dividends, &[0.25, 0.75, 0.0, 0.0]);
        }
    }

    #[test]
    fn weights_do_not_count_without_permit_activity_or_on_newcomers() {
        let rows = || vec![vec![(2, 1.0)], vec![(3, 1.0)], vec![], vec![]];
        let stake = [1.0, 1.0, 0.0, 0.0];

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
        let mut input = input(&[1.0, 0.0], vec![vec![(0, 1.0)], vec![]], true);
        close(&epoch(&input).incentive, &[0.0, 0.0]);
        input.owner = Some(0);
        close(&epoch(&input).incentive, &[1.0, 0.0]);
    }

    #[test]
    fn bonds_approach_the_weights_epoch_by_epoch() {
        let mut input = input(&[1.0, 0.0], vec![vec![(1, 1.0)], vec![]], true);
        for expected in [0.1, 0.19, 0.271] {
            let output = epoch(&input);
            assert!((output.bonds[0][0].1 - expected).abs() < 1e-12);
            input.bonds = output.bonds;
        }
    }

    #[test]
    fn liquid_alpha_stays_within_its_bounds() {
        let liquid = LiquidAlpha { low: 0.7, high: 0.9, steepness: 10.0 };
        assert!((liquid.rate(0.0, 1.0, 0.0) - 0.9).abs() < 0.002);
        assert!((liquid.rate(0.5, 0.5, 0.5) - 0.7).abs() < 0.002);
        assert!((liquid.rate(0.0, 0.5, 0.0) - 0.8).abs() < 1e-12);
    }
}
