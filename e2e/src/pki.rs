//! Keys and certificates of a cluster: an authority for Kubernetes, one for etcd, one for aggregated API servers.
//!
//! Separate authorities, because each of them answers a different question: who may talk to the API server, who may talk to etcd
//! (the API server alone), and whom the API server may introduce to others. A certificate for one opens none of the other doors.
//!
//! Certificates are made once and found again; one whose names changed, or whose authority is new, is made anew.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use serde_json::json;

use crate::{layout::write_file, sha256_hex};

/// The folder of keys and certificates, and how to add to it.
pub struct Pki {
    folder: PathBuf,
}

/// An authority that can sign.
pub struct Authority {
    name: &'static str,
    certificate: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    fingerprint: String,
}

/// Paths of a certificate and its key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate, in PEM.
    pub certificate: PathBuf,
    /// The private key, in PEM (PKCS#8).
    pub key: PathBuf,
}

/// What a certificate says about its holder.
pub struct Subject<'a> {
    /// File name without extension.
    pub file: &'a str,
    /// Common name: to Kubernetes, the user.
    pub user: &'a str,
    /// Organisation: to Kubernetes, the group.
    pub group: Option<&'a str>,
    /// DNS names and IP addresses under which the holder serves.
    pub serves: &'a [String],
}

impl Pki {
    /// The keys and certificates in `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The authority with this name, made when it is not there.
    ///
    /// # Errors
    /// When a file cannot be read or written, or holds no key.
    pub fn authority(&self, name: &'static str) -> Result<Authority> {
        let pair = self.pair(name);
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params);
        let key = match fs::read_to_string(&pair.key) {
            Ok(pem) if pair.certificate.exists() => {
                KeyPair::from_pem(&pem).with_context(|| format!("`{}` holds no key", pair.key.display()))?
            }
            _ => {
                let key = KeyPair::generate().context("cannot make a key")?;
                let certificate = params.self_signed(&key).context("cannot sign an authority")?;
                write_file(&pair.key, key.serialize_pem().as_bytes(), 0o600)?;
                write_file(&pair.certificate, certificate.pem().as_bytes(), 0o644)?;
                key
            }
        };
        let present = fs::read(&pair.certificate)
            .with_context(|| format!("cannot read the certificate `{}`", pair.certificate.display()))?;
        // The issuer needs the name and the key only, and both are known without parsing the certificate.
        Ok(Authority {
            name,
            certificate: pair.certificate,
            issuer: Issuer::new(params, key),
            fingerprint: sha256_hex(present),
        })
    }

    /// A certificate for `subject` signed by `authority`, made when it is not there or says something else.
    ///
    /// # Errors
    /// When a file cannot be written or a name is not one.
    pub fn issue(&self, authority: &Authority, subject: &Subject<'_>) -> Result<Pair> {
        let pair = self.pair(subject.file);
        let note = format!(
            "{} {} {} {} {}\n",
            authority.name,
            authority.fingerprint,
            subject.user,
            subject.group.unwrap_or("-"),
            subject.serves.join(",")
        );
        let note_file = self.folder.join(format!("{}.subject", subject.file));
        let known = fs::read_to_string(&note_file).is_ok_and(|known| known == note);
        if known && pair.certificate.exists() && pair.key.exists() {
            return Ok(pair);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(subject.user, subject.group);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !subject.serves.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        for name in subject.serves {
            params.subject_alt_names.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => {
                    SanType::DnsName(name.as_str().try_into().with_context(|| format!("`{name}` is no DNS name"))?)
                }
            });
        }
        set_validity(&mut params);
        let key = KeyPair::generate().context("cannot make a key")?;
        let certificate = params.signed_by(&key, &authority.issuer).context("cannot sign a certificate")?;
        write_file(&pair.key, key.serialize_pem().as_bytes(), 0o600)?;
        write_file(&pair.certificate, certificate.pem().as_bytes(), 0o644)?;
        // Last, so that a killed run makes the pair again instead of trusting half of it.
        write_file(&note_file, note.as_bytes(), 0o644)?;
        Ok(pair)
    }

    /// A key for signing tokens, and the file with its public half.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn token_key(&self) -> Result<Pair> {
        let pair = Pair { certificate: self.folder.join("tokens.pub"), key: self.folder.join("tokens.key") };
        if !(pair.certificate.exists() && pair.key.exists()) {
            let key = KeyPair::generate().context("cannot make a key")?;
            write_file(&pair.key, key.serialize_pem().as_bytes(), 0o600)?;
            write_file(&pair.certificate, key.public_key_pem().as_bytes(), 0o644)?;
        }
        Ok(pair)
    }

    /// The key pair of an authority, for the controller that signs certificates inside the cluster.
    pub fn pair(&self, name: &str) -> Pair {
        Pair { certificate: self.folder.join(format!("{name}.crt")), key: self.folder.join(format!("{name}.key")) }
    }
}

impl Authority {
    /// The certificate that says whom to trust.
    pub fn certificate(&self) -> PathBuf {
        self.certificate.clone()
    }
}

/// A kubeconfig that holds everything it needs, so that it can be copied. Kubernetes reads JSON as well as YAML.
///
/// # Errors
/// When a certificate cannot be read.
pub fn kubeconfig(server: &str, authority: &Authority, pair: &Pair, user: &str) -> Result<Vec<u8>> {
    let embed = |path: &Path| -> Result<String> {
        Ok(BASE64_STANDARD.encode(fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?))
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "mycelium",
            "cluster": { "server": server, "certificate-authority-data": embed(&authority.certificate)? },
        }],
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": embed(&pair.certificate)?,
                "client-key-data": embed(&pair.key)?,
            },
        }],
        "contexts": [{ "name": "mycelium", "context": { "cluster": "mycelium", "user": user } }],
        "current-context": "mycelium",
    });
    let mut text = serde_json::to_vec_pretty(&config)?;
    text.push(b'\n');
    Ok(text)
}

fn distinguished_name(user: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name.push(DnType::CommonName, user);
    name
}

fn set_validity(params: &mut CertificateParams) {
    // Fixed dates: a local cluster must not die of old age, nor of a clock that was set back.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2045, 1, 1);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn issue(pki: &Pki, serves: &[&str]) -> Vec<u8> {
        let authority = pki.authority("ca").unwrap();
        let serves: Vec<String> = serves.iter().map(ToString::to_string).collect();
        let subject = Subject { file: "api", user: "kube-apiserver", group: Some("system:masters"), serves: &serves };
        fs::read(pki.issue(&authority, &subject).unwrap().certificate).unwrap()
    }

    #[test]
    fn a_certificate_is_made_once_and_anew_when_its_names_or_its_authority_change() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::new(folder.path().to_owned());
        let first = issue(&pki, &["10.44.0.1", "kubernetes.default.svc"]);
        assert_eq!(first, issue(&pki, &["10.44.0.1", "kubernetes.default.svc"]));
        let second = issue(&pki, &["10.44.0.1"]);
        assert_ne!(first, second);
        fs::remove_file(pki.pair("ca").key).unwrap();
        assert_ne!(second, issue(&pki, &["10.44.0.1"]));
    }

    #[test]
    fn private_keys_are_readable_by_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::new(folder.path().to_owned());
        issue(&pki, &[]);
        let tokens = pki.token_key().unwrap();
        for key in [pki.pair("ca").key, pki.pair("api").key, tokens.key] {
            assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600, "{}", key.display());
        }
    }

    #[test]
    fn a_kubeconfig_needs_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::new(folder.path().to_owned());
        issue(&pki, &[]);
        let authority = pki.authority("ca").unwrap();
        let text = kubeconfig("https://10.44.0.1:6443", &authority, &pki.pair("api"), "admin").unwrap();
        let config: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let key = config["users"][0]["user"]["client-key-data"].as_str().unwrap();
        assert_eq!(BASE64_STANDARD.decode(key).unwrap(), fs::read(pki.pair("api").key).unwrap());
    }
}
