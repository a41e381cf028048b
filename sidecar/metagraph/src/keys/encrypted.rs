//! Wallet files that are protected by a password, in the three forms that Bittensor's wallet has written over the years.
//!
//! - `$NACL`: Argon2i with libsodium's "sensitive" costs, then a secret box. What is written today.
//! - Ansible vault 1.1: PBKDF2, AES-256-CTR, HMAC-SHA256. Written by `legacy_encrypt_keyfile_data`.
//! - Fernet with a PBKDF2 of ten million rounds: the first form, by the Python wallet. (PyPI bittensor-wallet 4.1.1 recognises
//!   it but no longer opens it.)
//!
//! The files in `tests/vectors/wallet` were made by PyPI bittensor-wallet 4.1.1 and, for Fernet, by PyPI cryptography.

use std::path::Path;

use aes::Aes256;
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use crypto_secretbox::aead::{Aead, KeyInit};
use crypto_secretbox::{Nonce, XSalsa20Poly1305};
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use fernet::Fernet;
use hmac::{Hmac, Mac};
use pbkdf2::pbkdf2_hmac;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::KeyError;

/// How each form begins.
const NACL: &[u8] = b"$NACL";
const ANSIBLE: &[u8] = b"$ANSIBLE_VAULT";
const FERNET: &[u8] = b"gAAAAA";

/// Salt of all `$NACL` files.
const NACL_SALT: [u8; 16] =
    [0x13, 0x71, 0x83, 0xdf, 0xf1, 0x5a, 0x09, 0xbc, 0x9c, 0x90, 0xb5, 0x51, 0x87, 0x39, 0xe9, 0xb1];
/// libsodium's `OPSLIMIT_SENSITIVE` and `MEMLIMIT_SENSITIVE` of Argon2i.
const NACL_PASSES: u32 = 8;
const NACL_MEMORY_KIB: u32 = 512 * 1024;
const NACL_NONCE: usize = 24;

/// Salt of all Fernet files.
const FERNET_SALT: &[u8] = b"Iguesscyborgslikemyselfhaveatendencytobeparanoidaboutourorigins";
const FERNET_ROUNDS: u32 = 10_000_000;

const ANSIBLE_ROUNDS: u32 = 10_000;
const ANSIBLE_HEADER: &[u8] = b"$ANSIBLE_VAULT;1.1;AES256";

/// Memory that is left to the rest of the process.
const MEMORY_RESERVE: u64 = 16 << 20;

/// Longest password file.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// Where the limit of this process's memory may stand.
const CGROUP_LIMITS: [(&str, &str); 2] = [
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
];

/// Password of a wallet file. It is wiped when this is dropped, and never printed.
#[derive(Clone)]
pub struct Password(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(..)")
    }
}

impl Password {
    /// A password as it is typed.
    pub fn new(password: impl AsRef<[u8]>) -> Self {
        Self(Zeroizing::new(password.as_ref().to_vec()))
    }

    /// Reads a password from a file. One line break at the end is not part of it.
    ///
    /// # Errors
    /// The file cannot be read, is empty or too large.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        use std::io::Read;
        let read = || {
            let mut bytes = Zeroizing::new(Vec::with_capacity(256));
            std::fs::File::open(path)?.take(PASSWORD_BYTES_MAX + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let mut bytes = read().map_err(|source| KeyError::PasswordFile { path: path.to_owned(), source })?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        if bytes.is_empty() || bytes.len() as u64 > PASSWORD_BYTES_MAX {
            return Err(KeyError::PasswordContent { path: path.to_owned() });
        }
        Ok(Self(bytes))
    }

    /// Name of the environment variable in which Bittensor's wallet keeps the password of a file.
    pub fn variable_of(path: &Path) -> String {
        let path = path.display().to_string().to_uppercase();
        format!("BT_PW_{}", path.replace(['/', '\\', '.'], "_"))
    }

    /// The password in the value of such a variable, which the wallet veils with the variable's name.
    ///
    /// # Errors
    /// The value is not what the wallet writes.
    pub fn from_variable(name: &str, value: &str) -> Result<Self, KeyError> {
        let wrong = || KeyError::PasswordVariable { name: name.to_owned() };
        let mut bytes = Zeroizing::new(STANDARD.decode(value.trim()).map_err(|_| wrong())?);
        if bytes.is_empty() || name.is_empty() {
            return Err(wrong());
        }
        bytes.iter_mut().zip(name.bytes().cycle()).for_each(|(byte, veil)| *byte ^= veil);
        Ok(Self(bytes))
    }
}

/// Whether the content of a file is one of the encrypted forms.
pub(super) fn is_encrypted(bytes: &[u8]) -> bool {
    [NACL, ANSIBLE, FERNET].iter().any(|start| bytes.starts_with(start))
}

/// Opens the content of an encrypted file.
pub(super) fn decrypt(bytes: &[u8], password: &Password) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    if let Some(sealed) = bytes.strip_prefix(NACL) {
        decrypt_nacl(sealed, password)
    } else if bytes.starts_with(ANSIBLE) {
        decrypt_ansible(bytes, password)
    } else {
        decrypt_fernet(bytes, password)
    }
}

fn decrypt_nacl(sealed: &[u8], password: &Password) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let damaged = KeyError::EncryptedForm { expected: "has no nonce and no sealed key behind `$NACL`" };
    let Some((nonce, sealed)) = sealed.split_first_chunk::<NACL_NONCE>() else { return Err(damaged) };
    open_nacl(&*nacl_key(password)?, nonce, sealed)
}

fn nacl_key(password: &Password) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let needed = u64::from(NACL_MEMORY_KIB) * 1024 + MEMORY_RESERVE;
    if let Some(available) = memory_left().filter(|available| *available < needed) {
        return Err(KeyError::Memory { needed_mib: needed >> 20, available_mib: available >> 20 });
    }
    let mut key = Zeroizing::new([0; 32]);
    let params = Params::new(NACL_MEMORY_KIB, NACL_PASSES, 1, Some(key.len())).map_err(|_| KeyError::WrongPassword)?;
    Argon2::new(Algorithm::Argon2i, Version::V0x13, params)
        .hash_password_into(&password.0, &NACL_SALT, key.as_mut_slice())
        .map_err(|_| KeyError::WrongPassword)?;
    Ok(key)
}

fn open_nacl(key: &[u8; 32], nonce: &[u8; NACL_NONCE], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let cipher = XSalsa20Poly1305::new(&(*key).into());
    cipher.decrypt(&Nonce::from(*nonce), sealed).map(Zeroizing::new).map_err(|_| KeyError::WrongPassword)
}

fn decrypt_fernet(token: &[u8], password: &Password) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let damaged = || KeyError::EncryptedForm { expected: "is no Fernet token" };
    let token = std::str::from_utf8(token).map_err(|_| damaged())?;
    let mut key = Zeroizing::new([0; 32]);
    pbkdf2_hmac::<Sha256>(&password.0, FERNET_SALT, FERNET_ROUNDS, key.as_mut_slice());
    let key = Zeroizing::new(URL_SAFE.encode(key.as_slice()));
    let fernet = Fernet::new(&key).ok_or_else(damaged)?;
    fernet.decrypt(token.trim()).map(Zeroizing::new).map_err(|_| KeyError::WrongPassword)
}

fn decrypt_ansible(vault: &[u8], password: &Password) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let damaged = || KeyError::EncryptedForm { expected: "is no Ansible vault of version 1.1 with AES256" };
    let body = vault.strip_prefix(ANSIBLE_HEADER).ok_or_else(damaged)?;
    // Hex of three lines, each of them hex again: salt, signature, sealed text.
    let digits: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let lines = hex::decode(digits).map_err(|_| damaged())?;
    let parts: Option<Vec<Vec<u8>>> = lines.split(|byte| *byte == b'\n').map(|line| hex::decode(line).ok()).collect();
    let [salt, signature, mut sealed] =
        parts.and_then(|parts| <[Vec<u8>; 3]>::try_from(parts).ok()).ok_or_else(damaged)?;
    let mut keys = Zeroizing::new([0; 80]);
    pbkdf2_hmac::<Sha256>(&password.0, &salt, ANSIBLE_ROUNDS, keys.as_mut_slice());
    let (cipher_key, rest) = keys.split_at(32);
    let (signing_key, counter) = rest.split_at(32);
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(signing_key).map_err(|_| damaged())?;
    mac.update(&sealed);
    mac.verify_slice(&signature).map_err(|_| KeyError::WrongPassword)?;
    let mut cipher = Ctr128BE::<Aes256>::new_from_slices(cipher_key, counter).map_err(|_| damaged())?;
    cipher.apply_keystream(&mut sealed);
    let mut text = Zeroizing::new(sealed);
    // PKCS#7 padding, covered by the signature.
    let padding = text.last().copied().map(usize::from).filter(|padding| (1..=16).contains(padding));
    let length = padding.and_then(|padding| text.len().checked_sub(padding)).ok_or_else(damaged)?;
    text.truncate(length);
    Ok(text)
}

/// Bytes that this process may still take, as far as a limit is set for it.
fn memory_left() -> Option<u64> {
    CGROUP_LIMITS.iter().find_map(|(limit, used)| left(&number(limit)?, &number(used).unwrap_or_default()))
}

fn number(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// `max`, or a number near the largest, is no limit.
fn left(limit: &str, used: &str) -> Option<u64> {
    let limit: u64 = limit.trim().parse().ok()?;
    let used: u64 = used.trim().parse().unwrap_or(0);
    (limit < u64::MAX / 4).then(|| limit.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    const PASSWORD: &str = "correct horse battery";
    const ADDRESS: &str = "5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV";

    fn file(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/wallet").join(name)
    }

    fn opens(name: &str) {
        let pair = read_hotkey_with(&file(name), Some(&Password::new(PASSWORD))).unwrap();
        assert_eq!(pair.hotkey().to_string(), ADDRESS);
        let error = read_hotkey_with(&file(name), Some(&Password::new("hunter2"))).unwrap_err();
        let text = format!("{:#}", anyhow::Error::from(error));
        assert!(text.contains("password") && !text.contains("hunter2"), "{text}");
        let text = format!("{:#}", anyhow::Error::from(read_hotkey(&file(name)).unwrap_err()));
        assert!(text.contains("--hotkey-password-file"), "{text}");
    }

    #[test]
    fn a_file_of_todays_wallet_opens_with_its_password_only() {
        let pair = read_hotkey_with(&file("hotkey-nacl"), Some(&Password::new(PASSWORD))).unwrap();
        assert_eq!(pair.hotkey().to_string(), ADDRESS);
        // Another password is another key; making a second one of a password would cost seconds.
        let bytes = std::fs::read(file("hotkey-nacl")).unwrap();
        let (nonce, sealed) = bytes[NACL.len()..].split_first_chunk().unwrap();
        assert!(matches!(open_nacl(&[1; 32], nonce, sealed), Err(KeyError::WrongPassword)));
        let text = format!("{:#}", anyhow::Error::from(read_hotkey(&file("hotkey-nacl")).unwrap_err()));
        assert!(text.contains("--hotkey-password-file"), "{text}");
    }

    #[test]
    fn an_ansible_vault_of_the_wallet_opens_with_its_password_only() {
        opens("hotkey-ansible");
    }

    #[test]
    fn a_fernet_file_opens_with_its_password() {
        let pair = read_hotkey_with(&file("hotkey-fernet"), Some(&Password::new(PASSWORD))).unwrap();
        assert_eq!(pair.hotkey().to_string(), ADDRESS);
    }

    #[test]
    fn damaged_files_are_told_from_wrong_passwords() {
        let password = Password::new(PASSWORD);
        let refused = |bytes: &[u8]| decrypt(bytes, &password).unwrap_err().to_string();
        assert!(refused(b"$NACL123").contains("no nonce"));
        assert!(refused(b"$ANSIBLE_VAULT;1.2;AES256\n00").contains("version 1.1"));
        assert!(refused(b"$ANSIBLE_VAULT;1.1;AES256\nzz").contains("no Ansible vault"));
        assert!(refused(b"gAAAAA\xff").contains("no Fernet token"));
    }

    #[test]
    fn the_memory_limit_is_understood() {
        assert_eq!(left("max\n", "1\n"), None);
        assert_eq!(left("9223372036854771712\n", "1\n"), None);
        assert_eq!(left("104857600\n", "4857600\n"), Some(100_000_000));
        assert_eq!(left("100", "200"), Some(0));
    }

    #[test]
    fn a_password_file_ends_at_its_line_break() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        for (content, expected) in [("a b\n", "a b"), ("a b", "a b"), ("a\r\n", "a"), ("a\n\n", "a\n")] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(Password::from_file(&path).unwrap().0.as_slice(), expected.as_bytes());
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(Password::from_file(&path).unwrap_err().to_string().contains("empty"));
        let error = Password::from_file(&directory.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("cannot be read"), "{error}");
    }

    /// Name and value as PyPI bittensor-wallet 4.1.1 writes them.
    #[test]
    fn the_wallets_own_variable_is_read() {
        let path = Path::new("/data/wallets/a-b.c/hotkeys/My_Key");
        let name = "BT_PW__DATA_WALLETS_A-B_C_HOTKEYS_MY_KEY";
        assert_eq!(Password::variable_of(path), name);
        let password = Password::from_variable(name, "ITstIjI8K2QpOzMsMmEuLTEgNi04").unwrap();
        assert_eq!(password.0.as_slice(), PASSWORD.as_bytes());
        assert!(Password::from_variable(name, "plain text").is_err());
    }

    #[test]
    fn a_password_is_never_printed() {
        assert_eq!(format!("{:?}", Password::new(PASSWORD)), "Password(..)");
    }

    #[test]
    fn ed25519_keys_are_refused_with_the_reason() {
        let text = format!("{:#}", anyhow::Error::from(read_hotkey(&file("hotkey-ed25519.json")).unwrap_err()));
        assert!(text.contains("ed25519"), "{text}");
    }

    #[test]
    fn a_private_key_alone_is_enough() {
        let pair = read_hotkey(&file("hotkey-uri.json")).unwrap();
        assert_eq!(pair.hotkey().to_string(), "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY");
        assert!(verify(&pair.hotkey(), b"message", &pair.sign(b"message")));
    }
}
