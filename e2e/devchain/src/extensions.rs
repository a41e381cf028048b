//! Transaction extensions that the public chain has and FRAME has not, or has with another behaviour.
//!
//! Their identifiers, their order and the bytes they add decide whether a client's signature is valid.

use std::fmt;
use std::marker::PhantomData;

use codec::{Decode, DecodeWithMemTracking, Encode};
use frame_support::traits::{IsSubType, OriginTrait};
use frame_support::weights::Weight;
use frame_system::Config;
use scale_info::TypeInfo;
use sp_runtime::impl_tx_ext_default;
use sp_runtime::traits::{DispatchInfoOf, Dispatchable, Implication, TransactionExtension, ValidateResult};
use sp_runtime::transaction_validity::{
    InvalidTransaction, TransactionSource, TransactionValidityError, ValidTransaction,
};

/// Checks and raises the signer's nonce.
///
/// FRAME's own turns away accounts without balance. Here they may send: hotkeys hold no TAO, and the calls they make
/// cost nothing.
#[derive(Clone, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
#[scale_info(skip_type_params(T))]
pub struct CheckNonce<T: Config>(#[codec(compact)] pub T::Nonce);

impl<T: Config> fmt::Debug for CheckNonce<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CheckNonce({:?})", self.0)
    }
}

impl<T> TransactionExtension<T::RuntimeCall> for CheckNonce<T>
where
    T: Config<Nonce = u32>,
    T::RuntimeCall: Dispatchable<RuntimeOrigin = T::RuntimeOrigin>,
    T::RuntimeOrigin: OriginTrait<AccountId = T::AccountId> + Clone,
{
    const IDENTIFIER: &'static str = "CheckNonce";
    type Implicit = ();
    type Val = Option<T::AccountId>;
    type Pre = ();

    fn weight(&self, _call: &T::RuntimeCall) -> Weight {
        Weight::from_parts(5_000_000, 0)
    }

    fn validate(
        &self,
        origin: T::RuntimeOrigin,
        _call: &T::RuntimeCall,
        _info: &DispatchInfoOf<T::RuntimeCall>,
        _len: usize,
        _self_implicit: Self::Implicit,
        _inherited_implication: &impl Implication,
        _source: TransactionSource,
    ) -> ValidateResult<Self::Val, T::RuntimeCall> {
        let Some(who) = origin.as_signer().cloned() else {
            return Ok((ValidTransaction::default(), None, origin));
        };
        let expected = frame_system::Account::<T>::get(&who).nonce;
        if self.0 < expected {
            return Err(InvalidTransaction::Stale.into());
        }
        let tag = |nonce: u32| (&who, nonce).encode();
        let validity = ValidTransaction {
            provides: vec![tag(self.0)],
            requires: if self.0 > expected { vec![tag(self.0 - 1)] } else { Vec::new() },
            ..ValidTransaction::default()
        };
        Ok((validity, Some(who), origin))
    }

    fn prepare(
        self,
        who: Self::Val,
        _origin: &T::RuntimeOrigin,
        _call: &T::RuntimeCall,
        _info: &DispatchInfoOf<T::RuntimeCall>,
        _len: usize,
    ) -> Result<Self::Pre, TransactionValidityError> {
        let Some(who) = who else { return Ok(()) };
        let expected = frame_system::Account::<T>::get(&who).nonce;
        if self.0 > expected {
            return Err(InvalidTransaction::Future.into());
        }
        frame_system::Account::<T>::mutate(&who, |account| account.nonce = self.0.wrapping_add(1));
        Ok(())
    }

    impl_tx_ext_default!(T::RuntimeCall;);
}

/// Refuses sudo calls of anyone but the sudo key before they reach a block.
#[derive(Clone, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
#[scale_info(skip_type_params(T))]
pub struct SudoTransactionExtension<T>(PhantomData<T>);

impl<T> Default for SudoTransactionExtension<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T> fmt::Debug for SudoTransactionExtension<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SudoTransactionExtension")
    }
}

impl<T> TransactionExtension<<T as Config>::RuntimeCall> for SudoTransactionExtension<T>
where
    T: pallet_sudo::Config + Send + Sync,
    <T as Config>::RuntimeCall: Dispatchable<RuntimeOrigin = T::RuntimeOrigin> + IsSubType<pallet_sudo::Call<T>>,
    T::RuntimeOrigin: OriginTrait<AccountId = T::AccountId> + Clone,
{
    const IDENTIFIER: &'static str = "SudoTransactionExtension";
    type Implicit = ();
    type Val = ();
    type Pre = ();

    fn validate(
        &self,
        origin: T::RuntimeOrigin,
        call: &<T as Config>::RuntimeCall,
        _info: &DispatchInfoOf<<T as Config>::RuntimeCall>,
        _len: usize,
        _self_implicit: Self::Implicit,
        _inherited_implication: &impl Implication,
        _source: TransactionSource,
    ) -> ValidateResult<Self::Val, <T as Config>::RuntimeCall> {
        let is_sudo_call = IsSubType::<pallet_sudo::Call<T>>::is_sub_type(call).is_some();
        if let Some(who) = origin.as_signer().filter(|_| is_sudo_call)
            && pallet_sudo::Key::<T>::get().as_ref() != Some(who)
        {
            return Err(InvalidTransaction::BadSigner.into());
        }
        Ok((ValidTransaction::default(), (), origin))
    }

    impl_tx_ext_default!(<T as Config>::RuntimeCall; weight prepare);
}

macro_rules! silent_extension {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
        pub struct $name;

        impl<Call: Dispatchable> TransactionExtension<Call> for $name {
            const IDENTIFIER: &'static str = stringify!($name);
            type Implicit = ();
            type Val = ();
            type Pre = ();

            impl_tx_ext_default!(Call; weight validate prepare);
        }
    };
}

silent_extension!(
    /// Stands where the public chain checks encrypted transactions, which this chain does not take.
    CheckShieldedTxValidity
);
silent_extension!(
    /// Stands where the public chain prefers the beacon's transactions, which this chain has not.
    DrandPriority
);
