//! The processes that a cluster has once: etcd, API server, controllers, scheduler, Service proxy, DNS and volumes.

use std::{net::Ipv4Addr, path::PathBuf};

use anyhow::Result;
use serde_json::json;

use super::{Health, Member, Site};
use crate::{
    daemon::Daemon,
    layout::write_file,
    pki::{self, Pair, Pki, Subject},
};

const API_PORT: u16 = 6443;
const ETCD_CLIENT_PORT: u16 = 2379;
const ETCD_METRICS_PORT: u16 = 2381;
const CONTROLLERS_PORT: u16 = 10257;
const SCHEDULER_PORT: u16 = 10259;
const PROXY_METRICS_PORT: u16 = 10249;
const PROXY_HEALTH_PORT: u16 = 10256;
const DNS_HEALTH_PORT: u16 = 8053;
const DNS_READY_PORT: u16 = 8153;

/// The user names of our own two processes; the objects that [`super::objects`] makes give them their rights.
pub(super) const DNS_USER: &str = "mycelium:dns";
pub(super) const VOLUMES_USER: &str = "mycelium:volumes";

/// The address of the API server, for people, pods and processes alike.
pub(super) fn api_url(gateway: Ipv4Addr) -> String {
    format!("https://{gateway}:{API_PORT}")
}

/// etcd. Its port is inside the namespace, on the loopback device, behind an authority of its own.
pub(super) fn etcd(site: &Site, pki: &Pki) -> Result<Member> {
    let authority = pki.authority("etcd-ca")?;
    let serves = ["127.0.0.1".to_owned()];
    let pair = pki.issue(&authority, &Subject { file: "etcd", user: "etcd", group: None, serves: &serves })?;
    let url = format!("https://127.0.0.1:{ETCD_CLIENT_PORT}");
    let daemon = site
        .program("etcd", "etcd")
        .flag("name", "mycelium")
        .flag("data-dir", site.layout.cluster().join("etcd"))
        .flag("listen-client-urls", &url)
        .flag("advertise-client-urls", &url)
        .flag("listen-peer-urls", "http://127.0.0.1:2380")
        .flag("listen-metrics-urls", format!("http://{}:{ETCD_METRICS_PORT}", site.addresses.gateway()))
        .file("cert-file", pair.certificate)
        .file("key-file", pair.key)
        .file("trusted-ca-file", authority.certificate())
        .flag("client-cert-auth", "true")
        .flag("log-level", "warn")
        // Flushing each write costs most of a local cluster's disk time, and what it saves is made anew by `make up`.
        .arg("--unsafe-no-fsync");
    Ok(Member { daemon, health: Health::Http(format!("{}:{ETCD_METRICS_PORT}", site.addresses.gateway()), "/health") })
}

/// The API server.
pub(super) fn api_server(site: &Site, pki: &Pki) -> Result<Member> {
    let gateway = site.addresses.gateway();
    let authority = pki.authority("ca")?;
    let etcd_authority = pki.authority("etcd-ca")?;
    let front_authority = pki.authority("front-proxy-ca")?;
    let serves = [
        gateway.to_string(),
        site.addresses.kubernetes_service().to_string(),
        "kubernetes".to_owned(),
        "kubernetes.default".to_owned(),
        "kubernetes.default.svc".to_owned(),
        "kubernetes.default.svc.cluster.local".to_owned(),
    ];
    let subject = Subject { file: "kube-apiserver", user: "kube-apiserver", group: None, serves: &serves };
    let serving = pki.issue(&authority, &subject)?;
    let client = |authority, file, user, group| {
        let subject = Subject { file, user, group, serves: &[] };
        pki.issue(authority, &subject)
    };
    let to_kubelet = client(&authority, "kubelet-client", "kube-apiserver", Some("system:masters"))?;
    let to_etcd = client(&etcd_authority, "etcd-client", "kube-apiserver", None)?;
    let to_extensions = client(&front_authority, "front-proxy-client", "front-proxy-client", None)?;
    let tokens = pki.token_key()?;
    let daemon = site
        .program("kube-apiserver", "kube-apiserver")
        .flag("bind-address", gateway.to_string())
        .flag("advertise-address", gateway.to_string())
        .flag("secure-port", API_PORT.to_string())
        .flag("endpoint-reconciler-type", "lease")
        .flag("service-cluster-ip-range", site.addresses.service_range())
        .flag("etcd-servers", format!("https://127.0.0.1:{ETCD_CLIENT_PORT}"))
        .file("etcd-cafile", etcd_authority.certificate())
        .file("etcd-certfile", to_etcd.certificate)
        .file("etcd-keyfile", to_etcd.key)
        .file("tls-cert-file", serving.certificate)
        .file("tls-private-key-file", serving.key)
        .file("client-ca-file", authority.certificate())
        .file("kubelet-certificate-authority", authority.certificate())
        .file("kubelet-client-certificate", to_kubelet.certificate)
        .file("kubelet-client-key", to_kubelet.key)
        .flag("kubelet-preferred-address-types", "InternalIP")
        .flag("service-account-issuer", "https://kubernetes.default.svc.cluster.local")
        .file("service-account-key-file", tokens.certificate)
        .file("service-account-signing-key-file", tokens.key)
        .file("requestheader-client-ca-file", front_authority.certificate())
        .flag("requestheader-allowed-names", "front-proxy-client")
        .flag("requestheader-extra-headers-prefix", "X-Remote-Extra-")
        .flag("requestheader-group-headers", "X-Remote-Group")
        .flag("requestheader-username-headers", "X-Remote-User")
        .file("proxy-client-cert-file", to_extensions.certificate)
        .file("proxy-client-key-file", to_extensions.key)
        .flag("authorization-mode", "Node,RBAC")
        .flag("enable-admission-plugins", "NodeRestriction")
        .flag("allow-privileged", "true")
        .flag("profiling", "false");
    Ok(Member { daemon, health: Health::Api(api_url(gateway), "/readyz") })
}

/// The controllers of Kubernetes itself.
pub(super) fn controller_manager(site: &Site, pki: &Pki) -> Result<Member> {
    let authority = pki.authority("ca")?;
    let signing = pki.pair("ca");
    let (serving, kubeconfig) = serving_client(site, pki, "kube-controller-manager")?;
    let daemon = with_kubeconfig(site.program("kube-controller-manager", "kube-controller-manager"), kubeconfig)
        .flag("bind-address", site.addresses.gateway().to_string())
        .flag("secure-port", CONTROLLERS_PORT.to_string())
        .file("tls-cert-file", serving.certificate)
        .file("tls-private-key-file", serving.key)
        // There is one of each, and a new one need not wait for the lease of the one before.
        .flag("leader-elect", "false")
        .flag("use-service-account-credentials", "true")
        .file("root-ca-file", authority.certificate())
        .file("service-account-private-key-file", pki.token_key()?.key)
        .flag("flex-volume-plugin-dir", site.layout.cluster().join("volume-plugins"))
        .file("cluster-signing-cert-file", signing.certificate)
        .file("cluster-signing-key-file", signing.key)
        .flag("profiling", "false");
    let url = format!("https://{}:{CONTROLLERS_PORT}", site.addresses.gateway());
    Ok(Member { daemon, health: Health::Api(url, "/healthz") })
}

/// The scheduler.
pub(super) fn scheduler(site: &Site, pki: &Pki) -> Result<Member> {
    let (serving, kubeconfig) = serving_client(site, pki, "kube-scheduler")?;
    let daemon = with_kubeconfig(site.program("kube-scheduler", "kube-scheduler"), kubeconfig)
        .flag("bind-address", site.addresses.gateway().to_string())
        .flag("secure-port", SCHEDULER_PORT.to_string())
        .file("tls-cert-file", serving.certificate)
        .file("tls-private-key-file", serving.key)
        .flag("leader-elect", "false")
        .flag("profiling", "false");
    let url = format!("https://{}:{SCHEDULER_PORT}", site.addresses.gateway());
    Ok(Member { daemon, health: Health::Api(url, "/healthz") })
}

/// The proxy that makes Service addresses work, one for all nodes: they share the namespace and so its packet filter.
pub(super) fn proxy(site: &Site, pki: &Pki) -> Result<Member> {
    let gateway = site.addresses.gateway();
    let kubeconfig = client(site, pki, "kube-proxy", "system:kube-proxy")?;
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": kubeconfig },
        "hostnameOverride": site.nodes.first(),
        "mode": "iptables",
        "clusterCIDR": site.addresses.pod_range(),
        "bindAddress": gateway,
        "healthzBindAddress": format!("{gateway}:{PROXY_HEALTH_PORT}"),
        "metricsBindAddress": format!("{gateway}:{PROXY_METRICS_PORT}"),
        // The limits of connection tracking belong to the whole machine and are left as they are.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
    });
    let file = site.write_config("kube-proxy.json", &config)?;
    let mut daemon = site.program("kube-proxy", "kube-proxy").file("config", file);
    daemon.inputs.push(kubeconfig);
    Ok(Member { daemon, health: Health::Http(format!("{gateway}:{PROXY_METRICS_PORT}"), "/healthz") })
}

/// CoreDNS. It has no resolver to ask about other names: there is no way out, and a quick "no" beats a time-out.
pub(super) fn dns(site: &Site, pki: &Pki) -> Result<Member> {
    let gateway = site.addresses.gateway();
    let kubeconfig = client(site, pki, "coredns", DNS_USER)?;
    let corefile = format!(
        ".:53 {{\n    errors\n    health {gateway}:{DNS_HEALTH_PORT}\n    ready {gateway}:{DNS_READY_PORT}\n    \
         kubernetes cluster.local in-addr.arpa ip6.arpa {{\n        kubeconfig {} mycelium\n        pods insecure\n        \
         ttl 5\n    }}\n    cache 5\n}}\n",
        kubeconfig.display()
    );
    let file = site.layout.config().join("Corefile");
    write_file(&file, corefile.as_bytes(), 0o644)?;
    let mut daemon = site.program("coredns", "coredns").arg("-conf").arg(&file);
    daemon.inputs.extend([file, kubeconfig]);
    Ok(Member { daemon, health: Health::Http(format!("{gateway}:{DNS_READY_PORT}"), "/ready") })
}

/// The provisioner of volumes: this same program under another subcommand.
pub(super) fn volumes(site: &Site, pki: &Pki) -> Result<Member> {
    let kubeconfig = client(site, pki, "provisioner", VOLUMES_USER)?;
    let mut daemon = Daemon::new("provisioner", site.own_program()?, site.network.namespace()).arg("provisioner");
    daemon = daemon.flag("volumes", site.layout.volumes());
    daemon.env.push(("KUBECONFIG".to_owned(), kubeconfig.display().to_string()));
    // Threads cost more than they bring for a program that makes a folder now and then.
    daemon.env.push(("TOKIO_WORKER_THREADS".to_owned(), "1".to_owned()));
    daemon.inputs.push(kubeconfig);
    Ok(Member { daemon, health: Health::Alive })
}

/// The kubeconfig of the person in front of the machine.
pub(super) fn administrator(site: &Site, pki: &Pki) -> Result<()> {
    let authority = pki.authority("ca")?;
    let subject = Subject { file: "admin", user: "mycelium-admin", group: Some("system:masters"), serves: &[] };
    let pair = pki.issue(&authority, &subject)?;
    let text = pki::kubeconfig(&api_url(site.addresses.gateway()), &authority, &pair, "admin")?;
    write_file(&site.layout.kubeconfig(), &text, 0o600)?;
    Ok(())
}

/// A kubeconfig for a process that is only a client.
pub(super) fn client(site: &Site, pki: &Pki, file: &str, user: &str) -> Result<PathBuf> {
    let authority = pki.authority("ca")?;
    let pair = pki.issue(&authority, &Subject { file, user, group: None, serves: &[] })?;
    write_kubeconfig(site, pki, file, &pair)
}

pub(super) fn write_kubeconfig(site: &Site, pki: &Pki, file: &str, pair: &Pair) -> Result<PathBuf> {
    let text = pki::kubeconfig(&api_url(site.addresses.gateway()), &pki.authority("ca")?, pair, file)?;
    let path = site.layout.pki().join(format!("{file}.kubeconfig"));
    write_file(&path, &text, 0o600)?;
    Ok(path)
}

fn serving_client(site: &Site, pki: &Pki, name: &str) -> Result<(Pair, PathBuf)> {
    let authority = pki.authority("ca")?;
    let user = format!("system:{name}");
    let serves = [site.addresses.gateway().to_string()];
    let pair = pki.issue(&authority, &Subject { file: name, user: &user, group: None, serves: &serves })?;
    let kubeconfig = write_kubeconfig(site, pki, name, &pair)?;
    Ok((pair, kubeconfig))
}

fn with_kubeconfig(daemon: Daemon, kubeconfig: PathBuf) -> Daemon {
    daemon
        .flag("authentication-kubeconfig", &kubeconfig)
        .flag("authorization-kubeconfig", &kubeconfig)
        .file("kubeconfig", kubeconfig)
}
