//! Hotkeys from Bittensor wallet files.
//!
//! Read once, kept in memory that is wiped, never printed: nothing here implements `Debug` over a secret, and no error
//! repeats what stood in a file, only where it was wrong.

mod encrypted;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schnorrkel::{ExpansionMode, Keypair, MiniSecretKey, SecretKey};
use serde::Deserialize;
use sidecar_util::{Hotkey, ValueError};
use subxt::Config;
use subxt::tx::Signer;
use subxt::utils::{AccountId32, MultiSignature};
use subxt_signer::bip39::Mnemonic;
use subxt_signer::sr25519::{self, PublicKey, Signature};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

pub use encrypted::Password;

/// Wallet files have a few hundred bytes; what is larger is something else.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Context of Substrate's signatures.
const SIGNING_CONTEXT: &[u8] = b"substrate";

/// `cryptoType` of keys that can sign here; absent in older files, which have no other.
const SR25519: i64 = 1;

/// Rounds with which Substrate makes a seed of a phrase.
const PHRASE_ROUNDS: u32 = 2048;

/// Why a hotkey could not be taken from a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file is not there or cannot be read.
    #[error("hotkey file `{}` cannot be read: check the path and the mount of its Secret", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file was read and is not usable.
    #[error("hotkey file `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<KeyError>,
    },
    /// Nothing in it.
    #[error("is empty: put the hotkey file of a Bittensor wallet there (~/.bittensor/wallets/WALLET/hotkeys/HOTKEY)")]
    Empty,
    /// Larger than any wallet file.
    #[error("is larger than {FILE_BYTES_MAX} bytes and no wallet file: give the hotkey file of a Bittensor wallet")]
    TooLarge,
    /// Protected by a password.
    #[error(
        "is encrypted: name a file with its password (--hotkey-password-file), or write the hotkey without one \
             (`btcli wallet regen-hotkey --no-use-password`) and let the Secret protect it"
    )]
    Encrypted,
    /// The password does not open it.
    #[error("is not opened by the password given: give the one with which the hotkey was made")]
    WrongPassword,
    /// It begins like an encrypted file and goes on as none.
    #[error("{expected}: take the file from the wallet again")]
    EncryptedForm {
        /// What is wrong, as the end of a sentence.
        expected: &'static str,
    },
    /// Opening takes more memory than this process may have.
    #[error(
        "is encrypted in the form that takes {needed_mib} MiB of memory to open, and {available_mib} MiB are left: raise the \
             memory limit of the sidecar's container, or write the hotkey without a password"
    )]
    Memory {
        /// What opening takes.
        needed_mib: u64,
        /// What is left under the limit.
        available_mib: u64,
    },
    /// The password file is not there or cannot be read.
    #[error("password file `{}` cannot be read: check the path and the mount of its Secret", path.display())]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The password file has no password in it.
    #[error("password file `{}` is empty or larger than any password: put the password there, and nothing else", path.display())]
    PasswordContent {
        /// The file.
        path: PathBuf,
    },
    /// The environment variable of the wallet has another value than the wallet writes.
    #[error("environment variable {name} is not as Bittensor's wallet writes it (`Keyfile.save_password_to_env`)")]
    PasswordVariable {
        /// The variable.
        name: String,
    },
    /// Another kind of key.
    #[error(
        "has an ed25519 key (`cryptoType` {crypto_type}): validators and miners sign with sr25519; make a hotkey of that kind"
    )]
    Ed25519 {
        /// What the file says.
        crypto_type: i64,
    },
    /// Neither JSON nor a seed.
    #[error(
        "is neither a wallet file (JSON, wrong at line {line}, column {column}) nor a seed of 0x and 64 hex digits"
    )]
    Malformed {
        /// Line of the first error.
        line: usize,
        /// Column of the first error.
        column: usize,
    },
    /// A field is wrong. Its value is not repeated.
    #[error("field `{field}` {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is expected, as the end of a sentence.
        expected: &'static str,
    },
    /// The public address is wrong.
    #[error("{0}")]
    Address(ValueError),
    /// Nothing says whose key it is.
    #[error("has no `ss58Address`: give the hotkey file of a Bittensor wallet, not another of its files")]
    NoAddress,
    /// Only the public part is there.
    #[error(
        "has neither `secretSeed` nor `secretPhrase` nor `privateKey`: give the hotkey file itself, not its public part \
             (`hotkeypub.txt`, `coldkeypub.txt`)"
    )]
    NoSecret,
    /// Parts of the file belong to different keys.
    #[error(
        "`{field}` belongs to {found}, but `ss58Address` is {address}: the file was edited, or the key is not \
             sr25519; take the file from the wallet again"
    )]
    Mismatch {
        /// The field that does not fit.
        field: &'static str,
        /// Whose it is.
        found: Hotkey,
        /// What the file says it is.
        address: Hotkey,
    },
}

/// A hotkey that can sign. The secret is wiped when this is dropped.
#[derive(Clone)]
pub struct HotkeyPair {
    hotkey: Hotkey,
    pair: Keypair,
}

impl HotkeyPair {
    /// The public part.
    pub fn hotkey(&self) -> Hotkey {
        self.hotkey
    }

    /// An sr25519 signature over a message, in the context `substrate` as the chain expects it.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair.sign_simple(SIGNING_CONTEXT, message).to_bytes()
    }

    /// The key as subxt's extrinsics take it.
    pub fn signer(&self) -> &Self {
        self
    }

    /// A key from a seed.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, KeyError> {
        let seed = MiniSecretKey::from_bytes(seed)
            .map_err(|_| KeyError::Field { field: "secretSeed", expected: "is not an sr25519 seed" })?;
        Ok(Self::from_pair(seed.expand_to_keypair(ExpansionMode::Ed25519)))
    }

    fn from_pair(pair: Keypair) -> Self {
        Self { hotkey: pair.public.to_bytes().into(), pair }
    }
}

impl<T: Config> Signer<T> for HotkeyPair
where
    T::AccountId: From<AccountId32>,
    T::Signature: From<MultiSignature>,
{
    fn account_id(&self) -> T::AccountId {
        AccountId32(*self.hotkey.as_bytes()).into()
    }

    fn sign(&self, payload: &[u8]) -> T::Signature {
        MultiSignature::Sr25519(Self::sign(self, payload)).into()
    }
}

impl fmt::Debug for HotkeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HotkeyPair").field(&self.hotkey).finish()
    }
}

/// Whether a signature over a message is by this hotkey.
pub fn verify(hotkey: &Hotkey, message: &[u8], signature: &[u8; 64]) -> bool {
    sr25519::verify(&Signature(*signature), message, &PublicKey(*hotkey.as_bytes()))
}

/// Reads a hotkey with its secret from a wallet file.
///
/// # Errors
/// The file, the field and the remedy; never the content.
pub fn read_hotkey(path: &Path) -> Result<HotkeyPair, KeyError> {
    read_hotkey_with(path, None)
}

/// The same, with a password for files that are encrypted. Opening one takes seconds and, in the form that is written
/// today, 512 MiB of memory: call it where that blocks nobody.
///
/// # Errors
/// The file, the field and the remedy; never the content or the password.
pub fn read_hotkey_with(path: &Path, password: Option<&Password>) -> Result<HotkeyPair, KeyError> {
    let bytes = read(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })?;
    let opened = match password {
        Some(password) if encrypted::is_encrypted(bytes.trim_ascii()) && bytes.len() as u64 <= FILE_BYTES_MAX => {
            // Not trimmed: a sealed key may end in any byte.
            encrypted::decrypt(bytes.trim_ascii_start(), password)
        }
        _ => Ok(bytes),
    };
    let pair = opened.and_then(|bytes| parse_hotkey(&bytes));
    pair.map_err(|source| KeyError::File { path: path.to_owned(), source: Box::new(source) })
}

fn read(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    use std::io::Read;
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    // One byte more than allowed is enough for the check to see that it is too large.
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The same from the content of a file.
pub fn parse_hotkey(bytes: &[u8]) -> Result<HotkeyPair, KeyError> {
    let (hotkey, pair) = parse(bytes)?;
    let pair = pair.ok_or(KeyError::NoSecret)?;
    // An address beside the secret was compared with it already.
    debug_assert!(hotkey == pair.hotkey, "parse() compared them");
    Ok(pair)
}

/// The public part of a wallet file, which may lack the secret. What is there has to belong to one key.
pub fn public_hotkey(bytes: &[u8]) -> Result<Hotkey, KeyError> {
    parse(bytes).map(|(hotkey, _)| hotkey)
}

/// A wallet file as Bittensor writes it. Fields that are not needed are not read.
#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(rename_all = "camelCase")]
struct WalletFile {
    secret_phrase: Option<String>,
    secret_seed: Option<String>,
    public_key: Option<String>,
    account_id: Option<String>,
    ss58_address: Option<String>,
    private_key: Option<String>,
    crypto_type: Option<i64>,
}

fn parse(bytes: &[u8]) -> Result<(Hotkey, Option<HotkeyPair>), KeyError> {
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(KeyError::TooLarge);
    }
    let bytes = bytes.trim_ascii();
    if bytes.is_empty() {
        return Err(KeyError::Empty);
    }
    if encrypted::is_encrypted(bytes) {
        return Err(KeyError::Encrypted);
    }
    if let Some(seed) = std::str::from_utf8(bytes).ok().and_then(|text| hex32(text.trim_matches('"'))) {
        let pair = HotkeyPair::from_seed(&seed)?;
        return Ok((pair.hotkey, Some(pair)));
    }
    // The parser's own message may repeat parts of the file; its place may not.
    let file: WalletFile = serde_json::from_slice(bytes)
        .map_err(|error| KeyError::Malformed { line: error.line(), column: error.column() })?;

    if let Some(crypto_type) = file.crypto_type.filter(|crypto_type| *crypto_type != SR25519) {
        return Err(KeyError::Ed25519 { crypto_type });
    }
    let pair = secret(&file)?;
    let address = match (&file.ss58_address, &pair) {
        (Some(text), _) => {
            Some(text.parse::<Hotkey>().map_err(|error| KeyError::Address(error.of_field("ss58Address")))?)
        }
        (None, _) => None,
    };
    let hotkey = address.or(pair.as_ref().map(HotkeyPair::hotkey)).ok_or(KeyError::NoAddress)?;
    let same = |field, found: Hotkey| {
        if found == hotkey { Ok(()) } else { Err(KeyError::Mismatch { field, found, address: hotkey }) }
    };
    for (field, text) in [("publicKey", &file.public_key), ("accountId", &file.account_id)] {
        if let Some(text) = text {
            let bytes = hex32(text).ok_or(KeyError::Field { field, expected: "is not 0x and 64 hex digits" })?;
            same(field, Hotkey::from(*bytes))?;
        }
    }
    if let Some(pair) = &pair {
        let fields = [("secretSeed", &file.secret_seed), ("secretPhrase", &file.secret_phrase)];
        let field = fields.into_iter().find(|(_, value)| value.is_some()).map_or("privateKey", |(field, _)| field);
        same(field, pair.hotkey)?;
    }
    Ok((hotkey, pair))
}

fn secret(file: &WalletFile) -> Result<Option<HotkeyPair>, KeyError> {
    if let Some(seed) = &file.secret_seed {
        let expected = "is not 0x and 64 hex digits: take the file from the wallet again";
        let seed = hex32(seed).ok_or(KeyError::Field { field: "secretSeed", expected })?;
        return HotkeyPair::from_seed(&seed).map(Some);
    }
    let Some(phrase) = &file.secret_phrase else {
        // Files of keys that were made from a derivation path have this one alone.
        return file.private_key.as_ref().map(|key| expanded(key, file)).transpose();
    };
    let wrong = |expected| KeyError::Field { field: "secretPhrase", expected };
    let mnemonic = Mnemonic::from_str(phrase)
        .map_err(|_| wrong("is not a BIP-39 phrase (12 to 24 English words with a checksum)"))?;
    let entropy = Zeroizing::new(mnemonic.to_entropy());
    let seed = substrate_seed(&entropy).ok_or_else(|| wrong("makes no sr25519 key"))?;
    HotkeyPair::from_seed(&seed).map(Some)
}

/// A seed of a phrase as Substrate makes it: from the entropy, not from the words.
fn substrate_seed(entropy: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0; 64]);
    pbkdf2::pbkdf2_hmac::<sha2::Sha512>(entropy, b"mnemonic", PHRASE_ROUNDS, seed.as_mut_slice());
    seed.first_chunk().copied().map(Zeroizing::new)
}

/// A key after expansion: 64 bytes, in the one of two notations whose public part is the file's.
fn expanded(text: &str, file: &WalletFile) -> Result<HotkeyPair, KeyError> {
    let wrong = || KeyError::Field { field: "privateKey", expected: "is not 0x and 128 hex digits of an sr25519 key" };
    let mut bytes = Zeroizing::new([0; 64]);
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), bytes.as_mut_slice()).map_err(|_| wrong())?;
    let readings = [SecretKey::from_bytes(bytes.as_slice()), SecretKey::from_ed25519_bytes(bytes.as_slice())];
    let mut pairs = readings.into_iter().flatten().map(|secret| HotkeyPair::from_pair(secret.to_keypair()));
    let address = file.ss58_address.as_deref().and_then(|text| text.parse::<Hotkey>().ok());
    let known = address.or_else(|| file.public_key.as_deref().and_then(hex32).map(|bytes| Hotkey::from(*bytes)));
    match known {
        Some(hotkey) => {
            let mut pairs: Vec<HotkeyPair> = pairs.collect();
            let right = pairs.iter().position(|pair| pair.hotkey == hotkey).unwrap_or(0);
            // With neither, the comparison that follows names both sides.
            if right < pairs.len() { Ok(pairs.swap_remove(right)) } else { Err(wrong()) }
        }
        None => pairs.next().ok_or_else(wrong),
    }
}

fn hex32(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, bytes.as_mut_slice()).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The public development key `//Alice`.
    const SEED: &str = "0xe5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a";
    const PUBLIC: &str = "0xd43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d";
    const ADDRESS: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    const BOB: &str = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";
    const PHRASE: &str = "bottom drive obey lake curtain smoke basket hold race lonely fit walk";

    fn wallet() -> String {
        format!(
            r#"{{"accountId": "{PUBLIC}", "publicKey": "{PUBLIC}", "privateKey": "0x00", "secretPhrase": null,
                "secretSeed": "{SEED}", "ss58Address": "{ADDRESS}"}}"#
        )
    }

    fn refused(content: &str) -> String {
        public_hotkey(content.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_wallet_file_and_a_bare_seed_give_the_same_key() {
        for content in
            [wallet(), SEED.to_owned(), SEED.trim_start_matches("0x").to_owned() + "\n", format!("\"{SEED}\"")]
        {
            let pair = parse_hotkey(content.as_bytes()).unwrap();
            assert_eq!(pair.hotkey().to_string(), ADDRESS);
            assert_eq!(public_hotkey(content.as_bytes()).unwrap(), pair.hotkey());
        }
    }

    #[test]
    fn a_phrase_alone_is_enough() {
        let pair = parse_hotkey(format!(r#"{{"secretPhrase": "{PHRASE}"}}"#).as_bytes()).unwrap();
        assert_eq!(pair.hotkey().to_string(), "5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV");
    }

    #[test]
    fn signatures_verify_for_their_message_and_key_only() {
        let pair = parse_hotkey(SEED.as_bytes()).unwrap();
        let signature = pair.sign(b"message");
        assert!(verify(&pair.hotkey(), b"message", &signature));
        assert!(!verify(&pair.hotkey(), b"another", &signature));
        assert!(!verify(&BOB.parse().unwrap(), b"message", &signature));
        assert!(!verify(&pair.hotkey(), b"message", &[0; 64]));
    }

    #[test]
    fn the_public_part_alone_names_the_hotkey_and_cannot_sign() {
        let content = format!(r#"{{"publicKey": "{PUBLIC}", "ss58Address": "{ADDRESS}"}}"#);
        assert_eq!(public_hotkey(content.as_bytes()).unwrap().to_string(), ADDRESS);
        assert!(parse_hotkey(content.as_bytes()).unwrap_err().to_string().contains("hotkeypub.txt"));
    }

    #[test]
    fn parts_of_two_keys_are_refused_with_both_names() {
        let error = refused(&wallet().replace(ADDRESS, BOB));
        assert!(error.contains("`publicKey`") && error.contains(ADDRESS) && error.contains(BOB), "{error}");
        let error = refused(&format!(r#"{{"secretSeed": "{SEED}", "ss58Address": "{BOB}"}}"#));
        assert!(error.contains("`secretSeed`"), "{error}");
    }

    #[test]
    fn unusable_files_are_refused_with_a_remedy_and_without_their_content() {
        let check = |content: &str, part: &str| {
            let error = refused(content);
            assert!(error.contains(part), "{error}");
            for secret in [&SEED[2..20], "lonely", "hunter2"] {
                assert!(!error.contains(secret), "{error}");
            }
        };
        check("", "empty");
        check(" \n", "empty");
        check("$NACL\u{1}\u{2}", "--hotkey-password-file");
        check("gAAAAABhunter2", "encrypted");
        check("{\"secretSeed\": hunter2}", "line 1, column 16");
        check("[\"hunter2\"]", "neither a wallet file");
        check(r#"{"secretSeed": 5}"#, "line 1");
        check(&wallet().replace(SEED, &SEED[..20]), "field `secretSeed`");
        check(&format!(r#"{{"secretPhrase": "{PHRASE} hunter2"}}"#), "field `secretPhrase`");
        check(&wallet().replace(PUBLIC, "0x12"), "field `publicKey`");
        check(&wallet().replace(ADDRESS, "5Grw"), "ss58Address: `5Grw`");
        check("{}", "no `ss58Address`");
        check(&" ".repeat(70_000), "larger than");
    }

    #[test]
    fn nothing_prints_the_secret() {
        let pair = parse_hotkey(SEED.as_bytes()).unwrap();
        assert_eq!(format!("{pair:?}"), format!("HotkeyPair({ADDRESS})"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read_hotkey(Path::new("/nowhere/hotkey")).unwrap_err();
        assert!(error.to_string().starts_with("hotkey file `/nowhere/hotkey` cannot be read"), "{error}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hotkey");
        std::fs::write(&path, "{}").unwrap();
        let error = anyhow::Error::from(read_hotkey(&path).unwrap_err());
        assert!(format!("{error:#}").contains("no `ss58Address`"), "{error:#}");
    }

    proptest! {
        #[test]
        fn no_file_makes_the_parser_panic(bytes: Vec<u8>) {
            let _ = public_hotkey(&bytes);
        }
    }
}
