//! EVM addresses of neurons: a hotkey names an address, and the address signs that it is so.

use codec::Encode;
use frame_support::ensure;
use sp_core::H160;
use sp_io::crypto::secp256k1_ecdsa_recover;
use sp_io::hashing::keccak_256;
use sp_runtime::DispatchResult;

use super::pallet::*;
use super::types::NetUid;

/// What wallets put before a message, followed by its length in digits.
const PREFIX: &[u8] = b"\x19Ethereum Signed Message:\n";

/// Blocks between two bindings of a neuron: one, as on the public localnet.
const RATE_LIMIT: u64 = 1;

impl<T: Config> Pallet<T> {
    pub(super) fn check_evm_rate(netuid: NetUid, uid: u16) -> Result<(), Error<T>> {
        let last = AssociatedEvmAddress::<T>::get(netuid, uid).map_or(0, |(_, block)| block);
        ensure!(Self::block().saturating_sub(last) >= RATE_LIMIT, Error::<T>::EvmKeyAssociateRateLimitExceeded);
        Ok(())
    }

    pub(super) fn do_associate_evm_key(
        hotkey: T::AccountId,
        netuid: NetUid,
        evm_key: H160,
        block_number: u64,
        mut signature: [u8; 65],
    ) -> DispatchResult {
        ensure!(Self::exists(netuid), Error::<T>::SubnetNotExists);
        ensure!(Owner::<T>::contains_key(&hotkey), Error::<T>::NonAssociatedColdKey);
        let uid = Uids::<T>::get(netuid, &hotkey).ok_or(Error::<T>::HotKeyNotRegisteredInSubNet)?;
        Self::check_evm_rate(netuid, uid)?;
        // Wallets count the recovery id from 27.
        if signature[64] >= 27 {
            signature[64] -= 27;
        }
        let message = [hotkey.encode(), keccak_256(&block_number.encode()).to_vec()].concat();
        let length = message.len().to_string();
        let hash = keccak_256(&[PREFIX, length.as_bytes(), &message].concat());
        let public = secp256k1_ecdsa_recover(&signature, &hash).map_err(|_| Error::<T>::UnableToRecoverPublicKey)?;
        let address = H160::from_slice(&keccak_256(&public)[12..]);
        ensure!(address == evm_key, Error::<T>::InvalidRecoveredPublicKey);

        let block = Self::block();
        let old = AssociatedEvmAddress::<T>::get(netuid, uid).map(|(key, _)| key);
        AssociatedUidsByEvmAddress::<T>::try_mutate(netuid, evm_key, |uids| {
            uids.retain(|(known, _)| *known != uid);
            uids.try_push((uid, block)).map_err(|_| Error::<T>::EvmKeyAssociationLimitExceeded)
        })?;
        if let Some(old) = old.filter(|old| *old != evm_key) {
            Self::unbind_evm(netuid, old, uid);
        }
        AssociatedEvmAddress::<T>::insert(netuid, uid, (evm_key, block));
        Self::deposit_event(Event::EvmKeyAssociated { netuid, hotkey, evm_key, block_associated: block });
        Ok(())
    }

    /// Forgets the address of a slot.
    pub(super) fn forget_evm(netuid: NetUid, uid: u16) {
        if let Some((key, _)) = AssociatedEvmAddress::<T>::take(netuid, uid) {
            Self::unbind_evm(netuid, key, uid);
        }
    }

    fn unbind_evm(netuid: NetUid, key: H160, uid: u16) {
        AssociatedUidsByEvmAddress::<T>::mutate_exists(netuid, key, |slot| {
            if let Some(uids) = slot {
                uids.retain(|(known, _)| *known != uid);
                if uids.is_empty() {
                    *slot = None;
                }
            }
        });
    }
}
