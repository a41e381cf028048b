//! From the chain's columns to neurons: where raw numbers become checked types.

use sidecar_util::{Alpha, Axon, Metagraph, NetUid, Neuron, Score, Tao, Uid, ip_from_chain};

use crate::queries::{RawAxon, RawMetagraph};
use crate::source::Head;

/// An answer whose parts do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misfit {
    /// The chain left out a field that was asked for.
    #[error("field `{0}` is missing")]
    Missing(&'static str),
    /// A column has not one value per neuron.
    #[error("field `{field}` has {found} values for {neurons} neurons")]
    Length { field: &'static str, found: usize, neurons: usize },
    /// More neurons than uids.
    #[error("{0} neurons are more than a uid can count")]
    TooMany(usize),
}

/// Turns the chain's columns into neurons. `vtrust` is shorter than the other columns between a registration and the
/// next epoch on some runtimes; what is missing there is nought.
pub(crate) fn to_metagraph(netuid: NetUid, at: Head, raw: RawMetagraph, vtrust: &[u16]) -> Result<Metagraph, Misfit> {
    let hotkeys = raw.hotkeys.ok_or(Misfit::Missing("hotkeys"))?;
    let n = hotkeys.len();
    let coldkeys = column("coldkeys", raw.coldkeys, n)?;
    let axons = column("axons", raw.axons, n)?;
    let active = column("active", raw.active, n)?;
    let permits = column("validator_permit", raw.validator_permit, n)?;
    let last_update = column("last_update", raw.last_update, n)?;
    let emission = column("emission", raw.emission, n)?;
    let dividends = column("dividends", raw.dividends, n)?;
    let incentives = column("incentives", raw.incentives, n)?;
    let consensus = column("consensus", raw.consensus, n)?;
    let registered_at = column("block_at_registration", raw.block_at_registration, n)?;
    let alpha_stake = column("alpha_stake", raw.alpha_stake, n)?;
    let tao_stake = column("tao_stake", raw.tao_stake, n)?;
    let total_stake = column("total_stake", raw.total_stake, n)?;

    let mut neurons = Vec::with_capacity(n);
    for (i, hotkey) in hotkeys.into_iter().enumerate() {
        neurons.push(Neuron {
            uid: Uid(u16::try_from(i).map_err(|_| Misfit::TooMany(n))?),
            hotkey: hotkey.into(),
            coldkey: coldkeys[i].into(),
            active: active[i],
            validator_permit: permits[i],
            total_stake: Tao::from_rao(total_stake[i]),
            alpha_stake: Alpha::from_rao(alpha_stake[i]),
            tao_stake: Tao::from_rao(tao_stake[i]),
            incentive: Score(incentives[i]),
            consensus: Score(consensus[i]),
            dividends: Score(dividends[i]),
            vtrust: Score(vtrust.get(i).copied().unwrap_or_default()),
            emission: Alpha::from_rao(emission[i]),
            last_update: last_update[i],
            registered_at: registered_at[i],
            axon: to_axon(&axons[i]),
        });
    }
    Ok(Metagraph {
        netuid,
        block: at.number,
        block_hash: at.hash,
        tempo: raw.tempo.ok_or(Misfit::Missing("tempo"))?,
        last_step: raw.last_step.ok_or(Misfit::Missing("last_step"))?,
        blocks_since_last_step: raw.blocks_since_last_step.ok_or(Misfit::Missing("blocks_since_last_step"))?,
        neurons,
    })
}

fn column<T>(field: &'static str, values: Option<Vec<T>>, neurons: usize) -> Result<Vec<T>, Misfit> {
    let values = values.ok_or(Misfit::Missing(field))?;
    let found = values.len();
    if found == neurons { Ok(values) } else { Err(Misfit::Length { field, found, neurons }) }
}

/// A neuron that never served has an axon of noughts.
pub(crate) fn to_axon(raw: &RawAxon) -> Option<Axon> {
    let ip = ip_from_chain(raw.ip, raw.ip_type)?;
    let axon = Axon { ip, port: raw.port, protocol: raw.protocol.into(), version: raw.version, block: raw.block };
    (raw.port != 0).then_some(axon)
}

#[cfg(test)]
mod tests {
    use codec::{Compact, CompactAs, Encode};
    use proptest::prelude::*;
    use scale_decode::DecodeAsType;
    use scale_info::{MetaType, PortableRegistry, Registry, TypeInfo};
    use sidecar_util::{AxonProtocol, BlockHash};

    use super::*;
    use crate::plan::MetagraphPlan;

    const HEAD: Head = Head { number: 7, hash: BlockHash([7; 32]) };

    /// Amounts and shares as newer runtimes wrap them.
    #[derive(Encode, CompactAs, TypeInfo, Clone, Copy)]
    struct AlphaBalance(u64);
    #[derive(Encode, CompactAs, TypeInfo, Clone, Copy)]
    struct PerU16(u16);
    #[derive(Encode, CompactAs, TypeInfo, Clone, Copy)]
    struct NetUidStyle461(u16);
    #[derive(Encode, TypeInfo, Clone, Copy)]
    struct AccountId32([u8; 32]);

    #[derive(Encode, TypeInfo, Clone, Default)]
    struct AxonInfo {
        block: u64,
        version: u32,
        ip: u128,
        port: u16,
        ip_type: u8,
        protocol: u8,
        placeholder1: u8,
        placeholder2: u8,
    }

    /// A runtime's struct: generic in how it spells a netuid, an amount and a share.
    #[derive(Encode, TypeInfo, Clone)]
    struct SelectiveMetagraph<
        N: TypeInfo + Encode + 'static,
        A: TypeInfo + Encode + 'static,
        S: TypeInfo + Encode + 'static,
    > {
        netuid: N,
        name: Option<Vec<Compact<u8>>>,
        block: Option<Compact<u64>>,
        tempo: Option<Compact<u16>>,
        last_step: Option<Compact<u64>>,
        blocks_since_last_step: Option<Compact<u64>>,
        a_field_of_the_future: Option<Vec<u128>>,
        hotkeys: Option<Vec<AccountId32>>,
        coldkeys: Option<Vec<AccountId32>>,
        axons: Option<Vec<AxonInfo>>,
        active: Option<Vec<bool>>,
        validator_permit: Option<Vec<bool>>,
        last_update: Option<Vec<Compact<u64>>>,
        emission: Option<Vec<A>>,
        dividends: Option<Vec<S>>,
        incentives: Option<Vec<S>>,
        consensus: Option<Vec<S>>,
        block_at_registration: Option<Vec<Compact<u64>>>,
        alpha_stake: Option<Vec<A>>,
        tao_stake: Option<Vec<A>>,
        total_stake: Option<Vec<A>>,
    }

    fn chain_struct<N, A, S>(netuid: N, amount: fn(u64) -> A, share: fn(u16) -> S) -> SelectiveMetagraph<N, A, S>
    where
        N: TypeInfo + Encode + 'static,
        A: TypeInfo + Encode + 'static,
        S: TypeInfo + Encode + 'static,
    {
        let served = AxonInfo { block: 3, version: 1, ip: 0x0101_0101, port: 8091, ip_type: 4, ..AxonInfo::default() };
        SelectiveMetagraph {
            netuid,
            name: None,
            block: Some(Compact(7)),
            tempo: Some(Compact(360)),
            last_step: Some(Compact(5)),
            blocks_since_last_step: Some(Compact(2)),
            a_field_of_the_future: Some(vec![1, 2, 3]),
            hotkeys: Some(vec![AccountId32([1; 32]), AccountId32([2; 32])]),
            coldkeys: Some(vec![AccountId32([3; 32]), AccountId32([4; 32])]),
            axons: Some(vec![served, AxonInfo::default()]),
            active: Some(vec![true, false]),
            validator_permit: Some(vec![true, false]),
            last_update: Some(vec![Compact(6), Compact(0)]),
            emission: Some(vec![amount(10), amount(20)]),
            dividends: Some(vec![share(65535), share(0)]),
            incentives: Some(vec![share(0), share(65535)]),
            consensus: Some(vec![share(1), share(2)]),
            block_at_registration: Some(vec![Compact(1), Compact(2)]),
            alpha_stake: Some(vec![amount(1_000), amount(0)]),
            tao_stake: Some(vec![amount(500), amount(0)]),
            total_stake: Some(vec![amount(1_090), amount(0)]),
        }
    }

    /// Decodes by name, and checks that the fast way reads the same.
    fn decode<T: TypeInfo + Encode + Clone + 'static>(value: &T) -> RawMetagraph {
        let mut registry = Registry::new();
        let id = registry.register_type(&MetaType::new::<Option<T>>()).id;
        let types: PortableRegistry = registry.into();
        let bytes = Some(value.clone()).encode();
        let by_name = Option::<RawMetagraph>::decode_as_type(&mut &*bytes, id, &types).unwrap();
        let plan = MetagraphPlan::of(&types, id).expect("the fast way knows every form that is in use");
        assert_eq!(plan.read(&types, &bytes).unwrap(), by_name);
        assert_eq!(plan.read(&types, &[0]).unwrap(), None);
        by_name.unwrap()
    }

    #[test]
    fn fields_are_found_by_name_whatever_wraps_them_and_stands_between_them() {
        let old = decode(&chain_struct(Compact(1u16), Compact::<u64>, Compact::<u16>));
        let new = decode(&chain_struct(
            Compact(NetUidStyle461(1)),
            |rao| Compact(AlphaBalance(rao)),
            |raw| Compact(PerU16(raw)),
        ));
        let old = to_metagraph(NetUid(1), HEAD, old, &[9, 8]).unwrap();
        let new = to_metagraph(NetUid(1), HEAD, new, &[9, 8]).unwrap();
        assert_eq!(old, new);
        assert_eq!((new.tempo, new.last_step, new.blocks_since_last_step), (360, 5, 2));
        let [first, second] = &new.neurons[..] else { panic!("{new:?}") };
        assert_eq!((first.uid, first.hotkey), (Uid(0), [1; 32].into()));
        assert_eq!((first.total_stake, first.alpha_stake), (Tao::from_rao(1_090), Alpha::from_rao(1_000)));
        assert_eq!((first.vtrust, first.dividends, second.incentive), (Score(9), Score(65535), Score(65535)));
        let axon = first.axon.clone().unwrap();
        assert_eq!((axon.ip.to_string().as_str(), axon.port, axon.protocol), ("1.1.1.1", 8091, AxonProtocol::Tcp));
        assert_eq!(second.axon, None);
    }

    #[test]
    fn a_column_of_another_length_is_named() {
        let mut raw = decode(&chain_struct(Compact(1u16), Compact::<u64>, Compact::<u16>));
        raw.total_stake = Some(vec![1]);
        let error = to_metagraph(NetUid(1), HEAD, raw.clone(), &[]).unwrap_err();
        assert_eq!(error.to_string(), "field `total_stake` has 1 values for 2 neurons");
        raw.total_stake = None;
        let error = to_metagraph(NetUid(1), HEAD, raw, &[]).unwrap_err();
        assert_eq!(error, Misfit::Missing("total_stake"));
    }

    #[test]
    fn a_validator_trust_that_lags_behind_a_registration_counts_as_nought() {
        let raw = decode(&chain_struct(Compact(1u16), Compact::<u64>, Compact::<u16>));
        let metagraph = to_metagraph(NetUid(1), HEAD, raw, &[9]).unwrap();
        assert_eq!(metagraph.neurons[1].vtrust, Score(0));
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_decoder_panic(bytes: Vec<u8>) {
            let mut registry = Registry::new();
            let chain = MetaType::new::<Option<SelectiveMetagraph<Compact<u16>, Compact<u64>, Compact<u16>>>>();
            let id = registry.register_type(&chain).id;
            let types: PortableRegistry = registry.into();
            let by_name = Option::<RawMetagraph>::decode_as_type(&mut &*bytes, id, &types);
            if let Ok(Some(raw)) = by_name {
                let _ = to_metagraph(NetUid(1), HEAD, raw, &[]);
            }
            let _ = MetagraphPlan::of(&types, id).unwrap().read(&types, &bytes);
        }

        /// Also where every number takes another number of bytes, and where fields are cut off in the middle.
        #[test]
        fn the_fast_way_reads_what_decoding_by_name_reads(
            numbers in proptest::collection::vec(any::<u64>(), 0..40),
            shift in 0..64_u32,
            shares in proptest::collection::vec(any::<u16>(), 0..40),
            cut in any::<proptest::sample::Index>(),
        ) {
            let compact: Vec<_> = numbers.iter().map(|number| Compact(number >> shift)).collect();
            let mut value = chain_struct(Compact(1u16), Compact::<u64>, Compact::<u16>);
            value.last_update = Some(compact.clone());
            value.total_stake = Some(compact.clone());
            value.emission = Some(compact);
            value.dividends = Some(shares.into_iter().map(Compact).collect());
            value.active = None;
            decode(&value);

            let mut registry = Registry::new();
            let chain = MetaType::new::<Option<SelectiveMetagraph<Compact<u16>, Compact<u64>, Compact<u16>>>>();
            let id = registry.register_type(&chain).id;
            let types: PortableRegistry = registry.into();
            let whole = Some(value).encode();
            let part = &whole[..cut.index(whole.len())];
            prop_assert!(MetagraphPlan::of(&types, id).unwrap().read(&types, part).is_err());
        }
    }
}
