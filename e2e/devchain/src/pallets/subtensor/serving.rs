//! Where neurons can be reached.

use frame_support::ensure;
use sp_runtime::DispatchResult;

use super::pallet::*;
use super::types::{AxonInfo, NetUid, NeuronCertificate, PrometheusInfo};

/// An address as calls carry it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endpoint {
    pub(super) ip: u128,
    pub(super) ip_type: u8,
    pub(super) port: u16,
}

impl<T: Config> Pallet<T> {
    /// What is checked of an axon, in the order of the public chain.
    pub(super) fn check_axon(hotkey: &T::AccountId, netuid: NetUid, endpoint: Endpoint) -> Result<(), Error<T>> {
        ensure!(Uids::<T>::contains_key(netuid, hotkey), Error::<T>::HotKeyNotRegisteredInNetwork);
        ensure!(matches!(endpoint.ip_type, 4 | 6), Error::<T>::InvalidIpType);
        // Address 0 is how a neuron takes its axon back.
        ensure!(endpoint.ip == 0 || is_valid_ip(endpoint), Error::<T>::InvalidIpAddress);
        let last = Axons::<T>::get(netuid, hotkey).map_or(0, |axon| axon.block);
        ensure!(Self::serving_allowed(netuid, last), Error::<T>::ServingRateLimitExceeded);
        ensure!(endpoint.port > 0, Error::<T>::InvalidPort);
        Ok(())
    }

    pub(super) fn check_prometheus(hotkey: &T::AccountId, netuid: NetUid, endpoint: Endpoint) -> Result<(), Error<T>> {
        ensure!(Uids::<T>::contains_key(netuid, hotkey), Error::<T>::HotKeyNotRegisteredInNetwork);
        ensure!(matches!(endpoint.ip_type, 4 | 6), Error::<T>::InvalidIpType);
        ensure!(is_valid_ip(endpoint), Error::<T>::InvalidIpAddress);
        let last = Prometheus::<T>::get(netuid, hotkey).map_or(0, |info| info.block);
        ensure!(Self::serving_allowed(netuid, last), Error::<T>::ServingRateLimitExceeded);
        Ok(())
    }

    fn serving_allowed(netuid: NetUid, last: u64) -> bool {
        let limit = ServingRateLimit::<T>::get(netuid);
        last == 0 || limit == 0 || Self::block().saturating_sub(last) >= limit
    }

    pub(super) fn do_serve_axon(
        hotkey: T::AccountId,
        netuid: NetUid,
        axon: AxonInfo,
        certificate: Option<NeuronCertificate>,
    ) -> DispatchResult {
        Self::check_axon(&hotkey, netuid, Endpoint { ip: axon.ip, ip_type: axon.ip_type, port: axon.port })?;
        if let Some(certificate) = certificate {
            NeuronCertificates::<T>::insert(netuid, &hotkey, certificate);
        }
        Axons::<T>::insert(netuid, &hotkey, AxonInfo { block: Self::block(), ..axon });
        Self::deposit_event(Event::AxonServed(netuid, hotkey));
        Ok(())
    }

    pub(super) fn do_serve_prometheus(hotkey: T::AccountId, netuid: NetUid, info: PrometheusInfo) -> DispatchResult {
        Self::check_prometheus(&hotkey, netuid, Endpoint { ip: info.ip, ip_type: info.ip_type, port: info.port })?;
        Prometheus::<T>::insert(netuid, &hotkey, PrometheusInfo { block: Self::block(), ..info });
        Self::deposit_event(Event::PrometheusServed(netuid, hotkey));
        Ok(())
    }
}

/// The public chain's test: not the loopback address, and within the range of its type.
fn is_valid_ip(endpoint: Endpoint) -> bool {
    let loopback = match endpoint.ip_type {
        4 => u128::from(u32::from(std::net::Ipv4Addr::LOCALHOST)),
        _ => u128::from(std::net::Ipv6Addr::LOCALHOST),
    };
    let end = if endpoint.ip_type == 4 { u128::from(u32::MAX) } else { u128::MAX };
    endpoint.ip != 0 && endpoint.ip != loopback && endpoint.ip < end
}
