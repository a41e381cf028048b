//! TLS 1.3 between members, both ways, in which the hotkey is the identity.
//!
//! TLS knows no sr25519, so the pattern of libp2p's TLS specification is used: every sidecar makes an ordinary key for TLS
//! and a self-signed certificate, in which an extension carries the hotkey and its signature over that TLS key. No name and
//! no authority is involved. A certificate is made for one group and one day; a TLS key that leaks dies by itself, and
//! membership is judged by the list of members, at every handshake.
//!
//! Sessions are never resumed: a resumed session would skip the check of the certificate.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rcgen::{CertificateParams, CustomExtension, KeyPair, PublicKeyData};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use sidecar_metagraph::keys::{HotkeyPair, verify};
use sidecar_util::Hotkey;
use sidecar_util::config::GroupConfig;
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long a certificate is good for.
const LIFETIME: Duration = Duration::from_hours(24);

/// A certificate older than this is made anew at the next handshake.
const RENEWAL: Duration = Duration::from_hours(12);

/// Clocks of two members may differ by so much.
const CLOCK_SKEW: Duration = Duration::from_mins(10);

/// The extension's object identifier, below `2.25`, where everybody may take a number that nobody else has.
const EXTENSION: [u64; 3] = [2, 25, 3_158_263_117_045_920_781];

/// First bytes of what the hotkey signs, so that the signature means nothing anywhere else.
const CONTEXT: &[u8] = b"mycelium-peer-tls-v1:";

/// What speaks inside.
const ALPN: &[u8] = b"h2";

/// Why a certificate is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PeerCertError {
    /// No X.509 certificate, or more than one.
    #[error("the peer's certificate is malformed")]
    Malformed,
    /// Not made by a sidecar.
    #[error("the peer's certificate names no hotkey: only sidecars of the group may connect")]
    NoHotkey,
    /// Made for another group, another TLS key, or by somebody else.
    #[error("the peer's certificate is not signed by {0} for this group")]
    Signature(Hotkey),
    /// Too old, or its clock is wrong.
    #[error("the certificate of {0} has expired or is from the future: check both clocks")]
    Expired(Hotkey),
    /// Somebody else answered at a member's address.
    #[error("{found} answered where {expected} was expected: the address belongs to another pod now")]
    Unexpected {
        /// Who should have.
        expected: Hotkey,
        /// Who did.
        found: Hotkey,
    },
    /// A stranger.
    #[error("{0} is not a member of the group")]
    NotAMember(Hotkey),
}

impl From<PeerCertError> for rustls::Error {
    fn from(error: PeerCertError) -> Self {
        Self::General(error.to_string())
    }
}

/// This sidecar's side of every handshake.
#[derive(Clone)]
pub(crate) struct PeerTls {
    identity: Arc<Identity>,
    provider: Arc<CryptoProvider>,
    group: watch::Receiver<GroupConfig>,
}

impl PeerTls {
    /// The identity of a member of a group.
    ///
    /// # Errors
    /// When no TLS key can be made.
    pub(crate) fn new(pair: HotkeyPair, group: watch::Receiver<GroupConfig>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let cluster_id = group.borrow().cluster_id.clone();
        let identity = Identity { issued: Mutex::new(Issued::new(&pair, &cluster_id)?), pair, cluster_id };
        Ok(Self { identity: Arc::new(identity), provider, group })
    }

    /// For connections to one member: nobody else may answer.
    pub(crate) fn client(&self, expected: Hotkey) -> Result<ClientConfig, rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.verifier(Some(expected))))
            .with_client_cert_resolver(self.identity.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(config)
    }

    /// For connections from members.
    pub(crate) fn server(&self) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(self.verifier(None)))
            .with_cert_resolver(self.identity.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// Who is at the other end of a connection whose handshake is done.
    pub(crate) fn peer(&self, certificates: Option<&[CertificateDer<'_>]>) -> Result<Hotkey, PeerCertError> {
        match certificates {
            Some([certificate]) => hotkey_of(certificate, &self.identity.cluster_id, UnixTime::now()),
            _ => Err(PeerCertError::Malformed),
        }
    }

    fn verifier(&self, expected: Option<Hotkey>) -> Verifier {
        Verifier {
            cluster_id: self.identity.cluster_id.clone(),
            algorithms: self.provider.signature_verification_algorithms,
            group: self.group.clone(),
            expected,
        }
    }
}

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerTls").field("hotkey", &self.identity.pair.hotkey()).finish_non_exhaustive()
    }
}

/// The hotkey and the certificate it signed last.
struct Identity {
    pair: HotkeyPair,
    cluster_id: String,
    issued: Mutex<Issued>,
}

struct Issued {
    key: Arc<CertifiedKey>,
    at: SystemTime,
}

impl Issued {
    fn new(pair: &HotkeyPair, cluster_id: &str) -> Result<Self, rustls::Error> {
        let at = SystemTime::now();
        let (certificate, key) = issue(pair, cluster_id, at)?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
        Ok(Self { key: Arc::new(CertifiedKey::new(vec![certificate], key)), at })
    }
}

impl Identity {
    fn certified_key(&self) -> Arc<CertifiedKey> {
        let mut issued = self.issued.lock();
        // A clock that was set back makes a certificate from the future: that one is made anew, too.
        if issued.at.elapsed().is_ok_and(|age| age < RENEWAL) {
            return issued.key.clone();
        }
        match Issued::new(&self.pair, &self.cluster_id) {
            Ok(new) => *issued = new,
            Err(error) => tracing::error!(%error, "no new peer certificate: the old one goes on until it expires"),
        }
        issued.key.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("hotkey", &self.pair.hotkey()).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certified_key())
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.certified_key())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn issue(
    pair: &HotkeyPair,
    cluster_id: &str,
    now: SystemTime,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rustls::Error> {
    let failed = |error: rcgen::Error| rustls::Error::General(format!("could not make a TLS key: {error}"));
    let key = KeyPair::generate().map_err(failed)?;
    let not_after = (now + LIFETIME).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let signature = pair.sign(&statement(cluster_id, not_after, &key.subject_public_key_info()));
    let extension = Attestation { hotkey: pair.hotkey(), not_after, signature }.encode();
    let mut params = CertificateParams::default();
    params.custom_extensions = vec![CustomExtension::from_oid_content(&EXTENSION, extension)];
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok((certificate.into(), PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
}

/// What the hotkey signs: this TLS key is mine, in this group, until then.
fn statement(cluster_id: &str, not_after: u64, public_key: &[u8]) -> Vec<u8> {
    let mut bytes = CONTEXT.to_vec();
    // Lengths in front, so that no two statements have the same bytes.
    bytes.extend_from_slice(&(cluster_id.len() as u64).to_be_bytes());
    bytes.extend_from_slice(cluster_id.as_bytes());
    bytes.extend_from_slice(&not_after.to_be_bytes());
    bytes.extend_from_slice(public_key);
    bytes
}

/// Content of the extension.
struct Attestation {
    hotkey: Hotkey,
    /// Seconds since 1970.
    not_after: u64,
    signature: [u8; 64],
}

impl Attestation {
    fn encode(&self) -> Vec<u8> {
        [&self.hotkey.as_bytes()[..], &self.not_after.to_be_bytes(), &self.signature].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (hotkey, rest) = bytes.split_first_chunk::<32>()?;
        let (not_after, rest) = rest.split_first_chunk::<8>()?;
        let signature = rest.try_into().ok()?;
        Some(Self { hotkey: (*hotkey).into(), not_after: u64::from_be_bytes(*not_after), signature })
    }
}

/// The hotkey that a certificate proves, if it proves one.
fn hotkey_of(certificate: &CertificateDer<'_>, cluster_id: &str, now: UnixTime) -> Result<Hotkey, PeerCertError> {
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|_| PeerCertError::Malformed)?;
    if !rest.is_empty() {
        return Err(PeerCertError::Malformed);
    }
    let oid = x509_parser::der_parser::Oid::from(&EXTENSION).map_err(|_| PeerCertError::Malformed)?;
    let extension = parsed.get_extension_unique(&oid).map_err(|_| PeerCertError::Malformed)?;
    let attestation =
        extension.and_then(|extension| Attestation::decode(extension.value)).ok_or(PeerCertError::NoHotkey)?;
    let Attestation { hotkey, not_after, signature } = attestation;
    if !verify(&hotkey, &statement(cluster_id, not_after, parsed.public_key().raw), &signature) {
        return Err(PeerCertError::Signature(hotkey));
    }
    let (now, skew) = (now.as_secs(), CLOCK_SKEW.as_secs());
    if not_after.saturating_add(skew) < now || not_after > now.saturating_add(LIFETIME.as_secs() + skew) {
        return Err(PeerCertError::Expired(hotkey));
    }
    Ok(hotkey)
}

/// Judges the other end's certificate.
#[derive(Debug)]
struct Verifier {
    cluster_id: String,
    algorithms: WebPkiSupportedAlgorithms,
    group: watch::Receiver<GroupConfig>,
    /// Who has to be there; anybody in the group where this is `None`.
    expected: Option<Hotkey>,
}

impl Verifier {
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), PeerCertError> {
        if !intermediates.is_empty() {
            return Err(PeerCertError::Malformed);
        }
        let found = hotkey_of(certificate, &self.cluster_id, now)?;
        if let Some(expected) = self.expected.filter(|expected| *expected != found) {
            return Err(PeerCertError::Unexpected { expected, found });
        }
        if self.group.borrow().members.iter().any(|member| member.hotkey == found) {
            Ok(())
        } else {
            Err(PeerCertError::NotAMember(found))
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }
}

/// TLS 1.2 is switched off; nothing calls this.
fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::Error::General("TLS 1.2 is not spoken between peers".to_owned()))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(certificate, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(certificate, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use sidecar_util::config::{Member, TimingProfile};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    fn pair(id: u8) -> HotkeyPair {
        HotkeyPair::from_seed(&[id; 32]).unwrap()
    }

    fn group(cluster_id: &str, members: &[u8]) -> watch::Receiver<GroupConfig> {
        let member = |id: &u8| Member { hotkey: pair(*id).hotkey(), address: "nowhere:1".into() };
        let members: Vec<Member> = members.iter().map(member).collect();
        let config = GroupConfig {
            cluster_id: cluster_id.into(),
            founder: pair(1).hotkey(),
            founded: true,
            voters: 3,
            timing: TimingProfile::Test,
            members,
        };
        watch::channel(config).1
    }

    fn member(id: u8, cluster_id: &str, members: &[u8]) -> PeerTls {
        PeerTls::new(pair(id), group(cluster_id, members)).unwrap()
    }

    /// A handshake and one byte back; what each side says about it.
    async fn handshake(
        client: &PeerTls,
        expected: u8,
        server: &PeerTls,
    ) -> (Result<(), String>, Result<Hotkey, String>) {
        let (near, far) = tokio::io::duplex(1 << 16);
        let acceptor = TlsAcceptor::from(Arc::new(server.server().unwrap()));
        let connector = TlsConnector::from(Arc::new(client.client(pair(expected).hotkey()).unwrap()));
        let accepted = async {
            let mut stream = acceptor.accept(far).await.map_err(|error| error.to_string())?;
            stream.write_all(b"!").await.map_err(|error| error.to_string())?;
            let peer = server.peer(stream.get_ref().1.peer_certificates()).map_err(|error| error.to_string());
            stream.shutdown().await.map_err(|error| error.to_string())?;
            peer
        };
        let connected = async {
            let name = ServerName::try_from("peer").unwrap();
            let mut stream = connector.connect(name, near).await.map_err(|error| error.to_string())?;
            stream.read_u8().await.map(drop).map_err(|error| error.to_string())
        };
        tokio::join!(connected, accepted)
    }

    #[tokio::test]
    async fn two_members_know_each_other_by_hotkey() {
        let (client, server) = (member(1, "a", &[1, 2]), member(2, "a", &[1, 2]));
        assert_eq!(handshake(&client, 2, &server).await, (Ok(()), Ok(pair(1).hotkey())));
    }

    #[tokio::test]
    async fn whoever_is_not_in_the_list_is_refused_by_either_side() {
        let (stranger, server) = (member(9, "a", &[1, 2, 9]), member(2, "a", &[1, 2]));
        let (client, accepted) = handshake(&stranger, 2, &server).await;
        assert!(client.is_err());
        assert!(accepted.unwrap_err().contains("is not a member of the group"));
        let (client, _) = handshake(&member(1, "a", &[1, 2]), 9, &member(9, "a", &[1, 9])).await;
        assert!(client.unwrap_err().contains("is not a member of the group"));
    }

    #[tokio::test]
    async fn another_member_at_the_address_is_refused() {
        let (client, server) = (member(1, "a", &[1, 2, 3]), member(3, "a", &[1, 2, 3]));
        let error = handshake(&client, 2, &server).await.0.unwrap_err();
        assert!(error.contains("answered where"), "{error}");
    }

    #[tokio::test]
    async fn a_certificate_for_another_group_is_refused() {
        let (client, server) = (member(1, "a", &[1, 2]), member(2, "b", &[1, 2]));
        let error = handshake(&client, 2, &server).await.0.unwrap_err();
        assert!(error.contains("is not signed by"), "{error}");
    }

    #[test]
    fn a_certificate_is_good_for_a_day_and_the_difference_of_clocks() {
        let issued = SystemTime::now();
        let (certificate, _) = issue(&pair(1), "a", issued).unwrap();
        let at = |when: SystemTime| {
            let since = UnixTime::since_unix_epoch(when.duration_since(UNIX_EPOCH).unwrap());
            hotkey_of(&certificate, "a", since)
        };
        let second = Duration::from_secs(1);
        assert!(at(issued).is_ok() && at(issued + LIFETIME).is_ok() && at(issued - CLOCK_SKEW + second).is_ok());
        let expired = Err(PeerCertError::Expired(pair(1).hotkey()));
        assert_eq!(at(issued + LIFETIME + CLOCK_SKEW + 2 * second), expired);
        assert_eq!(at(issued - CLOCK_SKEW - 2 * second), expired);
    }

    #[test]
    fn an_attestation_of_another_tls_key_or_without_one_is_refused() {
        let key = KeyPair::generate().unwrap();
        let foreign = pair(1).sign(&statement("a", u64::MAX, b"another key"));
        let forged = Attestation { hotkey: pair(1).hotkey(), not_after: u64::MAX, signature: foreign }.encode();
        let certificate = |content: Option<Vec<u8>>| {
            let mut params = CertificateParams::default();
            params.custom_extensions.extend(content.map(|it| CustomExtension::from_oid_content(&EXTENSION, it)));
            CertificateDer::from(params.self_signed(&key).unwrap())
        };
        let check = |content| hotkey_of(&certificate(content), "a", UnixTime::now()).unwrap_err();
        assert_eq!(check(Some(forged)), PeerCertError::Signature(pair(1).hotkey()));
        assert_eq!(check(Some(vec![1; 7])), PeerCertError::NoHotkey);
        assert_eq!(check(None), PeerCertError::NoHotkey);
        let garbage = hotkey_of(&CertificateDer::from(vec![1, 2, 3]), "a", UnixTime::now());
        assert_eq!(garbage.unwrap_err(), PeerCertError::Malformed);
    }
}
