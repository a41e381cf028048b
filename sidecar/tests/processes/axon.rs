//! The axon gate and the probes, between two real sidecars.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::spawn;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use sidecar_peer::handshake::encrypted::{self, PublicKeyBody};
use sidecar_peer::handshake::record::PeerRecord;
use sidecar_peer::handshake::{UnixTime, body_hash, strict};
use sidecar_util::Hotkey;
use sidecar_util::http::{EntryState, NodeBody, NodesBody};

use super::chain::Devchain;
use super::pod::{Pod, exchange, network};
use super::{free_address, pair, until};

/// What a program behind a gate was sent.
#[derive(Debug, Clone)]
struct Seen {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A miner's program: remembers what it was sent, and answers in two pieces.
struct Program {
    address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Program {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = seen.clone();
        spawn(move || {
            for stream in listener.incoming() {
                let (stream, told) = (stream.unwrap(), told.clone());
                spawn(move || serve(&stream, &told));
            }
        });
        Self { address, seen }
    }

    fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

fn serve(mut stream: &TcpStream, seen: &Mutex<Vec<Seen>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut lines = Vec::new();
        loop {
            let mut text = String::new();
            if reader.read_line(&mut text).unwrap_or_default() == 0 {
                return;
            }
            match text.trim_end() {
                "" => break,
                text => lines.push(text.to_owned()),
            }
        }
        let headers: Vec<(String, String)> = lines[1..]
            .iter()
            .map(|text| text.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())).unwrap())
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, n)| n.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        seen.lock().unwrap().push(Seen { line: lines[0].clone(), headers, body });
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nx-mycelium-uid: 9\r\nx-answer: yes\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(b"6\r\nhello \r\n").unwrap();
        stream.write_all(b"5\r\nworld\r\n0\r\n\r\n").unwrap();
    }
}

/// A port that drops what comes, as a firewall does: its queue of connections is full, and nobody takes one out of it.
struct Deaf {
    address: String,
    _listener: tokio::net::TcpListener,
    _queued: Vec<TcpStream>,
}

impl Deaf {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _in_runtime = runtime.enter();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
        let queued = std::iter::from_fn(connect).take(8).collect::<Vec<_>>();
        assert!(queued.len() < 8, "the queue is full");
        Self { address: address.to_string(), _listener: listener, _queued: queued }
    }
}

/// A validator, a miner behind its gate, and neurons whose axons lead elsewhere and nowhere, or that have none.
struct Subnet {
    chain: Devchain,
    validator: Pod,
    miner: Pod,
    gate: String,
    program: Program,
    _deaf: Deaf,
}

impl Subnet {
    fn start() -> Self {
        let (validator_axon, gate, program) = (free_address(), free_address(), Program::start());
        let (other, deaf) = (Program::start(), Deaf::start());
        let neuron = |id: u8, stake: u32, axon: &str| {
            let port: u16 = axon.rsplit_once(':').unwrap().1.parse().unwrap();
            json!({"hotkey": pair(id).hotkey().to_string(), "coldkey": "//Ferdie", "stake": stake.to_string(),
                   "axon": {"ip": "127.0.0.1", "port": port}})
        };
        let mut chain = Devchain::with_neurons(&[
            neuron(1, 5000, &validator_axon),
            neuron(2, 0, &gate),
            neuron(3, 0, &other.address),
            neuron(4, 0, &free_address()),
            neuron(5, 0, &deaf.address),
            json!({"hotkey": pair(6).hotkey().to_string(), "coldkey": "//Ferdie"}),
        ]);
        chain.run();
        let pod = |kind, id, flags: &[&str]| {
            let mut pod = Pod::new(kind, id);
            pod.flags = flags.iter().map(ToString::to_string).collect();
            pod.flags.extend(["--probe-interval-s".to_owned(), "1".to_owned()]);
            pod.configure(&network(&chain));
            pod.run();
            pod
        };
        let upstream = format!("http://{}", program.address);
        let validator = pod("validator", 1, &["--axon-listen", &validator_axon]);
        let miner = pod("miner", 2, &["--axon-listen", &gate, "--axon-upstream", &upstream]);
        for pod in [&validator, &miner] {
            until("ready", || pod.get("/readyz").filter(|answer| answer.status == 200));
        }
        until("the gate is open", || TcpStream::connect(&gate).ok());
        Self { chain, validator, miner, gate, program, _deaf: deaf }
    }

    /// Has the validator's sidecar sign a request to the miner.
    fn sign(
        &self,
        scheme: &str,
        method: &str,
        path: &str,
        query: &str,
        body: &[u8],
        uuid: Option<&str>,
    ) -> Vec<(String, String)> {
        let mut question = json!({
            "scheme": scheme, "method": method, "path": path, "query": query,
            "body": STANDARD.encode(body), "receiver_hotkey": self.miner.hotkey.to_string(),
        });
        if let Some(uuid) = uuid {
            question["symmetric_key_uuid"] = uuid.into();
        }
        // A sidecar that has just started waits for its lease, and looks at the chain, before it signs anything.
        let answer = until("signed", || {
            let answer = self.validator.post("/v1/requests/sign", &[], &question).unwrap();
            (answer.body["type"] != json!("urn:mycelium:signer-not-held")).then_some(answer)
        });
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_value(answer.body["headers"].clone()).unwrap()
    }

    /// Sends a request to the miner's gate.
    fn send(&self, method: &str, path: &str, headers: &[(String, String)], body: &[u8]) -> (u16, String, Vec<u8>) {
        exchange(TcpStream::connect(&self.gate).unwrap(), method, path, headers, body).unwrap()
    }
}

fn detail(body: &[u8]) -> Value {
    serde_json::from_slice::<Value>(body).unwrap()["detail"].clone()
}

#[test]
fn requests_reach_the_program_behind_the_gate_verified_and_once() {
    let mut subnet = Subnet::start();
    let hotkey = subnet.validator.hotkey.to_string();
    let body = br#"{"hi": "there"}"#;

    let mut headers = subnet.sign("plain", "POST", "/v1/chat", "", body, None);
    headers.push(("x-mycelium-uid".into(), "77".into()));
    let (status, head, answer) = subnet.send("POST", "/v1/chat", &headers, body);
    assert_eq!(status, 200, "{head}");
    assert!(String::from_utf8(answer).unwrap().contains("hello"), "the answer is passed on");
    assert!(head.contains("x-answer: yes") && !head.contains("x-mycelium-uid"), "{head}");
    let seen = subnet.program.last();
    assert_eq!((seen.line.as_str(), seen.body.as_slice()), ("POST /v1/chat HTTP/1.1", &body[..]));
    assert_eq!(seen.header("x-mycelium-hotkey"), Some(hotkey.as_str()));
    assert_eq!(seen.headers.iter().filter(|(name, _)| name == "x-mycelium-uid").count(), 1);
    assert_eq!((seen.header("x-mycelium-uid"), seen.header("x-mycelium-scheme")), (Some("0"), Some("plain")));

    let (status, _, answer) = subnet.send("POST", "/v1/chat", &headers, body);
    assert_eq!((status, detail(&answer)), (401, json!("Oi, that nonce is not valid!")));
    let headers = subnet.sign("plain", "POST", "/v1/chat", "", body, None);
    let (status, _, answer) = subnet.send("POST", "/v1/chat", &headers, b"tampered");
    assert_eq!((status, detail(&answer)), (401, json!("Oi, invalid signature, you're not who you said you were!")));
    let (status, _, answer) = subnet.send("POST", "/v1/chat", &[], body);
    assert_eq!((status, detail(&answer)[0]["type"].as_str()), (422, Some("missing")));

    // The strict scheme: another path or query is another request, and the answer can be signed.
    let mut headers = subnet.sign("strict", "GET", "/v1/models", "a=1", b"", None);
    let (status, _, answer) = subnet.send("GET", "/v1/models?a=2", &headers, b"");
    assert_eq!((status, detail(&answer).as_str().unwrap().contains("signature")), (401, true));
    headers.push(("mycelium-sign-response".into(), "1".into()));
    let (status, head, answer) = subnet.send("GET", "/v1/models?a=1", &headers, b"");
    assert_eq!(status, 200, "{head}");
    assert_eq!(subnet.program.last().line, "GET /v1/models?a=1 HTTP/1.1");
    let header = |name: &str| {
        head.lines().chain(headers.iter().map(|_| "")).find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap()
    };
    let nonce = &headers.iter().find(|(name, _)| name == strict::NONCE).unwrap().1;
    let (sender, receiver) = (subnet.validator.hotkey, subnet.miner.hotkey);
    assert_eq!(answer, b"hello world");
    assert!(strict::response_is_signed(&sender, &receiver, nonce, 200, &answer, header(strict::RESPONSE_SIGNATURE)));

    // Nobody else's words reach the program.
    let before = subnet.program.count();
    let stranger = stranger_headers(&subnet, 3, body);
    let (status, _, answer) = subnet.send("POST", "/v1/chat", &stranger, body);
    assert_eq!((status, detail(&answer).as_str().unwrap().starts_with("Insufficient stake of ")), (403, true));
    let stranger = stranger_headers(&subnet, 99, body);
    let (status, _, answer) = subnet.send("POST", "/v1/chat", &stranger, body);
    assert_eq!((status, detail(&answer)), (403, json!("Hotkey not found in metagraph")));
    assert_eq!(subnet.program.count(), before);
    let metrics = subnet.miner.metrics().unwrap();
    assert!(metrics.contains("axon_requests_total{scheme=\"plain\",result=\"ok\"} 1"), "{metrics}");

    // A receiver that starts again has forgotten its nonces, and takes none that it may have taken.
    let headers = subnet.sign("plain", "POST", "/v1/chat", "", body, None);
    assert_eq!(subnet.send("POST", "/v1/chat", &headers, body).0, 200);
    subnet.miner.kill();
    subnet.miner.run();
    until("the gate is open again", || TcpStream::connect(&subnet.gate).ok());
    until("replays are refused", || {
        let (status, _, answer) = subnet.send("POST", "/v1/chat", &headers, body);
        // Before the chain was read, nobody's stake is known.
        (status != 503).then(|| assert_eq!((status, detail(&answer)), (401, json!("Oi, that nonce is not valid!"))))
    });

    // Stake that falls below the minimum counts from the block that says so.
    let arguments = ["--hotkey", &hotkey, "--netuid", "1", "--amount", "4500"];
    subnet.chain.transact(&[&["remove-stake", "--from", "//Ferdie"], &arguments[..]].concat());
    until("refused", || {
        let headers = subnet.sign("plain", "POST", "/v1/chat", "", body, None);
        let (status, _, answer) = subnet.send("POST", "/v1/chat", &headers, body);
        (status == 403 && detail(&answer).as_str().unwrap().starts_with("Insufficient stake of ")).then_some(())
    });
}

/// Headers of a request that another key signs.
fn stranger_headers(subnet: &Subnet, id: u8, body: &[u8]) -> Vec<(String, String)> {
    let (key, receiver) = (pair(id), subnet.miner.hotkey.to_string());
    let nonce = format!("{}_abcdefghij", UnixTime::now().nanos());
    let message = format!("{nonce}:{receiver}:{}", body_hash(body));
    let signature = format!("0x{}", hex::encode(key.sign(message.as_bytes())));
    [
        ("validator-hotkey", key.hotkey().to_string()),
        ("miner-hotkey", receiver),
        ("nonce", nonce),
        ("signature", signature),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

#[test]
fn encrypted_requests_reach_the_program_in_the_clear() {
    let subnet = Subnet::start();
    let (status, _, body) = subnet.send("GET", "/public-encryption-key", &[], b"");
    assert_eq!(status, 200);
    let public: PublicKeyBody = serde_json::from_slice(&body).unwrap();
    assert!(public.is_signed_by(&subnet.miner.hotkey));
    let offer = encrypted::offer(&public.public_key, &mut StdRng::from_os_rng()).unwrap();
    let wrapped = serde_json::to_vec(&offer.body).unwrap();
    let headers = subnet.sign("encrypted", "POST", "/exchange-symmetric-key", "", &wrapped, Some(&offer.uuid));
    let (status, _, body) = subnet.send("POST", "/exchange-symmetric-key", &headers, &wrapped);
    assert_eq!((status, body.as_slice()), (200, encrypted::EXCHANGED.as_bytes()));

    let content = br#"{"hi": "there"}"#;
    let token = offer.key.encrypt(content);
    let mut headers = subnet.sign("encrypted", "POST", "/v1/chat", "", token.as_bytes(), Some(&offer.uuid));
    headers.push(("Content-Type".into(), "application/octet-stream".into()));
    let (status, _, _) = subnet.send("POST", "/v1/chat", &headers, token.as_bytes());
    assert_eq!(status, 200);
    let seen = subnet.program.last();
    assert_eq!(seen.body, content);
    assert_eq!(
        (seen.header("x-mycelium-scheme"), seen.header("content-type")),
        (Some("encrypted"), Some("application/json"))
    );

    let headers = subnet.sign("encrypted", "POST", "/v1/chat", "", b"", Some("another"));
    let (status, _, body) = subnet.send("POST", "/v1/chat", &headers, token.as_bytes());
    assert_eq!((status, detail(&body)), (400, json!("No symmetric key found for that hotkey and uuid")));
    let headers = subnet.sign("encrypted", "POST", "/v1/chat", "", b"", Some(&offer.uuid));
    let (status, _, _) = subnet.send("POST", "/v1/chat", &headers, b"no token");
    assert_eq!(status, 400, "and not 500");
}

#[test]
fn peers_that_are_probed_are_alive_until_they_are_gone() {
    let mut subnet = Subnet::start();
    let active = |pod: &Pod, count| {
        pod.until("active", |status| {
            status.registry.states.get(&EntryState::Active).copied().unwrap_or_default() == count
        })
    };
    // The miner answers with its record; the program of the third neuron with something else; the fourth with nothing.
    active(&subnet.validator, 1);
    active(&subnet.miner, 1);
    until("all kinds of answers", || {
        let metrics = subnet.validator.metrics()?;
        let found = |result: &str| metrics.contains(&format!("axon_probes_total{{result=\"{result}\"}}"));
        (found("alive") && found("other_answer") && found("no_answer")).then_some(())
    });
    subnet.miner.kill();
    active(&subnet.validator, 0);
    subnet.miner.run();
    active(&subnet.validator, 1);
}

/// The nodes of this list, by uid.
fn listed(pod: &Pod, query: &str) -> Vec<u16> {
    let nodes: NodesBody = pod.read(&format!("/v1/nodes?{query}")).unwrap();
    nodes.nodes.iter().map(|node| node.neuron.uid.0).collect()
}

#[test]
fn reachable_is_what_took_a_connection_when_it_was_tried() {
    let begin = Timestamp::now();
    let mut subnet = Subnet::start();
    let node = |pod: &Pod, uid: u16| pod.read::<NodeBody>(&format!("/v1/nodes/{uid}")).unwrap();
    let since = |pod: &Pod, uid: u16| node(pod, uid).reachable_since.map(|at| at.parse::<Timestamp>().unwrap());
    // The miner itself and the stranger's program take connections; the port of the fourth is closed, and that of the fifth
    // drops what comes. Itself nobody asks.
    until("reached", || (listed(&subnet.validator, "reachable=true") == [1, 2]).then_some(()));
    until("not reached", || (listed(&subnet.validator, "reachable=false") == [3, 4]).then_some(()));
    assert_eq!(listed(&subnet.validator, ""), [0, 1, 2, 3, 4, 5]);
    for unknown in [0, 5] {
        let node = node(&subnet.validator, unknown);
        assert_eq!((node.reachable, node.reachable_since), (None, None), "its own, and one without an axon");
    }
    // A miner asks validators only.
    until("the validator is reached", || (listed(&subnet.miner, "reachable=true") == [0]).then_some(()));
    assert_eq!(listed(&subnet.miner, "reachable=false"), Vec::<u16>::new());
    // Alive is more than reachable: nobody with the third neuron's key answered.
    assert_eq!(node(&subnet.validator, 2).state, EntryState::Discovered);
    let first = [1, 2, 3, 4].map(|uid| since(&subnet.validator, uid).unwrap());
    // Told in whole seconds.
    let begin = begin - SignedDuration::from_secs(1);
    assert!(first.iter().all(|at| (begin..=Timestamp::now()).contains(at)), "{first:?}");

    // When the miner is gone that is found, with its time; and what did not change keeps the time of before.
    subnet.miner.kill();
    until("not reached any more", || (listed(&subnet.validator, "reachable=false") == [1, 3, 4]).then_some(()));
    assert!(since(&subnet.validator, 1).unwrap() >= first[0]);
    assert_eq!([2, 3, 4].map(|uid| since(&subnet.validator, uid).unwrap()), first[1..]);
    subnet.miner.run();
    until("reached again", || (listed(&subnet.validator, "reachable=true") == [1, 2]).then_some(()));

    // Who does not probe knows of nobody.
    subnet.validator.kill();
    *subnet.validator.flags.last_mut().unwrap() = "0".to_owned();
    subnet.validator.run();
    until("nodes", || subnet.validator.read::<NodesBody>("/v1/nodes"));
    assert_eq!(listed(&subnet.validator, "reachable=true"), Vec::<u16>::new());
    assert_eq!(listed(&subnet.validator, "reachable=false"), Vec::<u16>::new());
}

#[test]
fn the_peer_record_is_made_for_its_challenge_and_signing_is_for_the_pod_alone() {
    let subnet = Subnet::start();
    let (status, _, body) = subnet.send("GET", "/.well-known/mycelium?challenge=abc-1", &[], b"");
    assert_eq!(status, 200);
    let record = PeerRecord::read(&body, &subnet.miner.hotkey, "abc-1", UnixTime::now()).unwrap();
    assert_eq!((record.netuid.0, record.schemes.len()), (1, 3));
    assert!(PeerRecord::read(&body, &subnet.miner.hotkey, "abc-2", UnixTime::now()).is_err());
    assert_eq!(subnet.send("GET", "/.well-known/mycelium", &[], b"").0, 422);

    let hotkey: Hotkey = subnet.miner.hotkey;
    let question = json!({"scheme": "strict", "method": "GET", "path": "/", "receiver_hotkey": hotkey.to_string()});
    assert_eq!(subnet.validator.post_by_tcp("/v1/requests/sign", &question).unwrap().status, 403);
    for (field, bad) in [
        ("scheme", json!("none")),
        ("method", json!("get")),
        ("path", json!("no path")),
        ("query", json!("a b")),
        ("receiver_hotkey", json!("5Grw")),
        ("body_sha256", json!("AB")),
        ("body", json!("%")),
        ("symmetric_key_uuid", json!("uuid")),
    ] {
        let mut wrong = question.clone();
        wrong[field] = bad;
        let answer = subnet.validator.post("/v1/requests/sign", &[], &wrong).unwrap();
        let said = answer.body["detail"].as_str().unwrap_or_default();
        assert!(answer.status == 400 && said.starts_with(field), "{field}: {}", answer.body);
    }

    // What user code verifies by itself, without the gate.
    let headers = subnet.sign("strict", "POST", "/own", "", b"body", None);
    let question = json!({"method": "POST", "path": "/own", "headers": headers, "body": STANDARD.encode(b"body")});
    let verify = || subnet.miner.post("/v1/requests/verify", &[], &question).unwrap().body;
    let answer = verify();
    let sender = subnet.validator.hotkey.to_string();
    assert_eq!((&answer["verified"], answer["hotkey"].as_str()), (&json!(true), Some(&*sender)), "{answer}");
    let again = verify();
    assert_eq!(
        (&again["verified"], &again["reason"], &again["status"]),
        (&json!(false), &json!("nonce_used"), &json!(401))
    );
}

#[test]
fn floods_are_refused_and_honest_requests_still_come_through() {
    let subnet = Subnet::start();
    let connect = || TcpStream::connect(&subnet.gate).unwrap();
    let body = br#"{"hi": "there"}"#;

    // A head that never ends is cut off; looked at below, when its time is over.
    let slow = connect();
    (&slow).write_all(b"POST / HTTP/1.1\r\nHost: a\r\nx: ").unwrap();
    let since = std::time::Instant::now();

    let giant = [("x-giant".to_owned(), "a".repeat(20_000))];
    assert_eq!(subnet.send("GET", "/", &giant, b"").0, 431);
    let many: Vec<(String, String)> = (0..200).map(|i| (format!("x-{i}"), "a".to_owned())).collect();
    assert_eq!(subnet.send("GET", "/", &many, b"").0, 431);

    // A body is refused by what it says of itself, before a byte of it is read.
    let mut headers = subnet.sign("plain", "POST", "/", "", body, None);
    headers.push(("Content-Length".into(), (9 << 20).to_string()));
    let (status, _, answer) = exchange(connect(), "POST", "/", &headers, b"").unwrap();
    assert_eq!((status, detail(&answer).as_str().unwrap().contains("8388608 bytes")), (413, true));

    // Bodies that do not come hold their memory, and no more than there is for all: eight of these.
    let announce_body = || {
        let stream = connect();
        let headers = subnet.sign("plain", "POST", "/", "", body, None);
        let head: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = format!("Content-Length: {}\r\n\r\n", 8 << 20);
        (&stream).write_all(format!("POST / HTTP/1.1\r\nHost: a\r\n{}{length}", head.concat()).as_bytes()).unwrap();
        stream
    };
    let mut waiting = Vec::new();
    until("no memory is left", || {
        // One more each time: an honest request may just hold the last bit that one of them needs.
        waiting.push(announce_body());
        let headers = subnet.sign("plain", "POST", "/", "", body, None);
        let (status, head, _) = subnet.send("POST", "/", &headers, body);
        (status == 429 && head.to_lowercase().contains("retry-after: 1")).then_some(())
    });
    assert!(waiting.len() >= 8);
    drop(waiting);
    until("there is memory again", || {
        let headers = subnet.sign("plain", "POST", "/", "", body, None);
        (subnet.send("POST", "/", &headers, body).0 == 200).then_some(())
    });

    // Who needs no signature shares one bucket.
    let limited =
        (0..2000).map(|_| subnet.send("GET", "/public-encryption-key", &[], b"")).find(|(status, ..)| *status != 200);
    let (status, head, _) = limited.unwrap();
    assert_eq!(status, 429, "{head}");
    let headers = subnet.sign("plain", "POST", "/", "", body, None);
    assert_eq!(subnet.send("POST", "/", &headers, body).0, 200, "and who signs does not");

    // One address cannot take all connections.
    let connections: Vec<TcpStream> = (0..140).map(|_| connect()).collect();
    until("some are closed", || {
        let closed = connections.iter().filter(|stream| {
            stream.set_nonblocking(true).unwrap();
            let mut stream: &TcpStream = stream;
            match stream.read(&mut [0]) {
                Ok(bytes) => bytes == 0,
                Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
            }
        });
        (closed.count() >= 12).then_some(())
    });
    drop(connections);

    slow.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut rest = Vec::new();
    let _ = (&slow).read_to_end(&mut rest);
    assert!(since.elapsed() < Duration::from_secs(25), "the slow head was cut off");
    until("honest requests come through", || {
        let headers = subnet.sign("plain", "POST", "/", "", body, None);
        (subnet.send("POST", "/", &headers, body).0 == 200).then_some(())
    });
}
