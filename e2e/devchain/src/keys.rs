//! Keys as developers write them: `//Alice`, a mnemonic, an SS58 address, a Bittensor wallet file.

use std::path::Path;
use std::str::FromStr;
use std::sync::OnceLock;

use sidecar_util::AccountId as Ss58Account;
use sp_core::crypto::{DEV_PHRASE, SecretUri};
use sp_core::{Pair, sr25519};

use crate::runtime::AccountId;

/// Development accounts that exist and are funded on every chain.
pub const DEV_NAMES: [&str; 6] = ["Alice", "Bob", "Charlie", "Dave", "Eve", "Ferdie"];

/// Why a key or an account cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text is neither a key URI nor an address.
    #[error("`{text}` is no account: write //Name, a mnemonic, 0x and a seed, or an SS58 address ({why})")]
    NotAnAccount {
        /// What was written; never a secret, because secrets parse.
        text: String,
        /// What the address parser says.
        why: String,
    },
    /// The text is no key URI.
    #[error("this is no key: write //Name, a mnemonic, 0x and a seed, or the path of a wallet file")]
    NotAKey,
    /// The wallet file cannot be read.
    #[error("cannot read the wallet file `{path}`: {why}")]
    Wallet {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
}

/// The pair of the development phrase. Stretching it takes milliseconds, and a genesis file may have a thousand names.
static DEVELOPMENT: OnceLock<Option<sr25519::Pair>> = OnceLock::new();

/// The pair of a key URI.
///
/// # Errors
/// [`KeyError::NotAKey`] when the text is none.
pub fn pair_from_uri(uri: &str) -> Result<sr25519::Pair, KeyError> {
    if !uri.starts_with("//") {
        return sr25519::Pair::from_string(uri, None).map_err(|_| KeyError::NotAKey);
    }
    let root = DEVELOPMENT.get_or_init(|| sr25519::Pair::from_phrase(DEV_PHRASE, None).ok().map(|(pair, _)| pair));
    let uri = SecretUri::from_str(uri).map_err(|_| KeyError::NotAKey)?;
    let root = root.as_ref().filter(|_| uri.password.is_none()).ok_or(KeyError::NotAKey)?;
    root.derive(uri.junctions.into_iter(), None).map(|(pair, _)| pair).map_err(|_| KeyError::NotAKey)
}

/// Account of a pair.
pub fn account_of(pair: &sr25519::Pair) -> AccountId {
    AccountId::new(pair.public().0)
}

/// An account written as a key URI that starts with `//`, or as an address.
///
/// # Errors
/// [`KeyError::NotAnAccount`] when it is neither.
pub fn account(text: &str) -> Result<AccountId, KeyError> {
    if text.starts_with("//")
        && let Ok(pair) = pair_from_uri(text)
    {
        return Ok(account_of(&pair));
    }
    let wrong = |why: String| KeyError::NotAnAccount { text: text.to_owned(), why };
    let parsed = Ss58Account::parse("account", text).map_err(|error| wrong(error.to_string()))?;
    Ok(AccountId::new(parsed.0))
}

/// SS58 address of an account.
pub fn address(account: &AccountId) -> String {
    Ss58Account((*account).clone().into()).to_string()
}

/// Reads a signing key: a URI, or the path of an unencrypted Bittensor wallet file (JSON with `secretSeed` or
/// `secretPhrase`).
///
/// # Errors
/// [`KeyError`] when it is neither or the file does not read.
pub fn signer(text: &str) -> Result<sr25519::Pair, KeyError> {
    // A path would parse as well: as a derivation from the development phrase, which is nobody's intent.
    if text.starts_with("//") || !(Path::new(text).exists() || text.contains('/')) {
        return pair_from_uri(text);
    }
    let wrong = |why: String| KeyError::Wallet { path: text.to_owned(), why };
    let content = std::fs::read(text).map_err(|error| wrong(error.to_string()))?;
    let file: WalletFile = serde_json::from_slice(&content)
        .map_err(|error| wrong(format!("{error}; an encrypted file must be decrypted first")))?;
    let secret = file.secret_seed.or(file.secret_phrase).ok_or_else(|| wrong("it has no secretSeed".into()))?;
    pair_from_uri(&secret).map_err(|_| wrong("its secretSeed is no key".into()))
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct WalletFile {
    secret_seed: Option<String>,
    secret_phrase: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

    #[test]
    fn names_and_addresses_are_the_same_account() {
        assert_eq!(account("//Alice").unwrap(), account(ALICE).unwrap());
        assert_eq!(address(&account("//Alice").unwrap()), ALICE);
    }

    #[test]
    fn derived_names_are_those_of_other_tools() {
        for uri in ["//Alice", "//Bob//hot", "//Eve/soft/2//hard"] {
            let expected = sr25519::Pair::from_string(uri, None).unwrap();
            assert_eq!(pair_from_uri(uri).unwrap().public(), expected.public(), "{uri}");
        }
        assert!(pair_from_uri("//Alice///password").is_err());
    }

    #[test]
    fn a_wallet_file_signs_as_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hotkey");
        let seed = [7u8; 32];
        let content = format!(r#"{{"secretSeed": "0x{}", "accountId": "0x00"}}"#, hex::encode(seed));
        std::fs::write(&path, content).unwrap();
        let pair = signer(path.to_str().unwrap()).unwrap();
        assert_eq!(pair.public(), sr25519::Pair::from_seed(&seed).public());
    }

    #[test]
    fn errors_name_the_remedy() {
        let error = account("5Grwva").unwrap_err().to_string();
        assert!(error.contains("`5Grwva`") && error.contains("SS58"), "{error}");
        assert!(signer("no such thing").is_err());
    }
}
