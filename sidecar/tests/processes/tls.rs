//! A chain behind TLS: trusted by what the system trusts, and refused otherwise.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use super::chain::Devchain;
use super::pod::{Pod, network};
use super::signer::set_weights;
use super::until;
use super::wire::Wire;

/// A certificate for loopback and, as PEM, the authority that signed it.
fn certificate(authority_name: &str) -> (ServerConfig, String) {
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.distinguished_name.push(DnType::CommonName, authority_name);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    // Nobody has chosen one for the process of the tests.
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![server.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    (config, authority.pem())
}

/// A sidecar that trusts these authorities and no others.
fn start(wire: &Wire, chain: &Devchain, authorities: &str) -> Pod {
    let mut pod = Pod::new("miner", 1);
    let mut network = network(chain);
    network.endpoints = vec![wire.endpoint()];
    pod.configure(&network);
    std::fs::write(pod.path("authorities.pem"), authorities).unwrap();
    pod.environment.push(("SSL_CERT_FILE", pod.path("authorities.pem").display().to_string()));
    pod.run();
    pod
}

#[test]
fn a_metagraph_is_read_over_tls() {
    let chain = Devchain::start(&[(1, 5000), (2, 3000)]);
    let (config, authority) = certificate("known");
    let wire = Wire::with_tls(&chain, config);
    let pod = start(&wire, &chain, &authority);
    let status = pod.until("in sync over TLS", |status| status.chain.synced && status.chain.block >= Some(2));
    assert_eq!(status.chain.endpoint.as_deref(), Some(wire.endpoint().as_str()));
    let metagraph = pod.get("/v1/metagraph").unwrap();
    assert_eq!((metagraph.status, metagraph.body["neurons"].as_array().unwrap().len()), (200, 2));
    // The submitter's connection is one of its own.
    until("weights are set", || (set_weights(&pod, "a").status == 200).then_some(()));
}

#[test]
fn a_certificate_that_nobody_trusts_is_refused_with_the_remedy() {
    let chain = Devchain::start(&[(1, 5000)]);
    let ((config, _), (_, other)) = (certificate("unknown"), certificate("known"));
    let wire = Wire::with_tls(&chain, config);
    for authorities in [other.as_str(), ""] {
        let pod = start(&wire, &chain, authorities);
        let error = until("an endpoint cannot be used", || {
            pod.status()?.chain.error.filter(|error| error.starts_with("EndpointDown"))
        });
        for part in [&wire.endpoint(), "certificate is not trusted", "SSL_CERT_FILE"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert_eq!(pod.status().unwrap().chain.block, None, "and nothing was read");
    }
}
