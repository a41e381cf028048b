//! subxt, with its stock configuration and no generated code, as a client of the development chain.
//!
//! A program and not a test, because it is one client among others: `run.py` starts a chain for it and gathers the JSON
//! lines that it prints, first one with the names of all operations, then one for each as it ends.
//!
//! It is a crate of its own so that it sees of the chain only what comes through the socket.

use std::collections::BTreeMap;
use std::io::Write;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use scale_decode::DecodeAsType;
use serde::Deserialize;
use serde_json::json;
use sidecar_util::Tao;
use subxt::dynamic::{self, Value};
use subxt::ext::frame_decode::storage::{IntoDecodableValues, IntoEncodableValues};
use subxt::tx::Payload;
use subxt::{OnlineClient, PolkadotConfig};
use subxt_signer::SecretUri;
use subxt_signer::sr25519::Keypair;

const MODULE: &str = "SubtensorModule";

/// Longer than anything takes on a chain of 250 ms blocks. Only what hangs takes as long.
const PATIENCE: Duration = Duration::from_secs(40);

const OPERATIONS: [&str; 19] = [
    "connect",
    "balance",
    "hyperparameters",
    "maps and constants",
    "neurons",
    "metagraph",
    "subscription to heads",
    "blocks and events",
    "transfer",
    "serve axon",
    "set weights",
    "set weights, commit-reveal by time lock",
    "register",
    "stake",
    "commitment",
    "proxy",
    "batch",
    "sudo",
    "errors by name",
];

/// What the genesis file told the chain, as far as it is compared.
#[derive(Debug, Deserialize)]
struct Told {
    accounts: Vec<Funded>,
    subnets: Vec<Subnet>,
}

#[derive(Debug, Deserialize)]
struct Funded {
    account: String,
    balance: Tao,
}

#[derive(Debug, Deserialize)]
struct Subnet {
    hyperparameters: Hyperparameters,
    neurons: Vec<Neuron>,
}

#[derive(Debug, Deserialize)]
struct Hyperparameters {
    tempo: u16,
    immunity_period: Option<u16>,
    kappa: Option<u16>,
}

#[derive(Debug, Deserialize)]
struct Neuron {
    hotkey: String,
    coldkey: String,
    #[serde(default)]
    stake: Tao,
}

/// The parts of the metagraph that are compared, by name: subxt skips the other fields.
#[derive(Debug, DecodeAsType)]
struct Graph {
    hotkeys: Vec<[u8; 32]>,
    coldkeys: Vec<[u8; 32]>,
    validator_permit: Vec<bool>,
    alpha_stake: Vec<u64>,
    tempo: u16,
}

#[derive(Debug, DecodeAsType)]
struct LiteNeuron {
    hotkey: [u8; 32],
    coldkey: [u8; 32],
    axon_info: Axon,
}

#[derive(Debug, DecodeAsType)]
struct Axon {
    ip: u128,
    port: u16,
}

#[derive(Debug, DecodeAsType)]
struct Account {
    data: AccountData,
}

#[derive(Debug, DecodeAsType)]
struct AccountData {
    free: u64,
}

/// What a call did: its events by name, and the fee that was paid.
struct Done {
    names: Vec<String>,
    fee: u64,
}

struct State {
    client: OnlineClient<PolkadotConfig>,
    url: String,
    told: Told,
}

#[tokio::main]
async fn main() -> Result<()> {
    tell(&json!({ "plan": OPERATIONS }))?;
    let url = std::env::var("CONFORMANCE_URL").context("CONFORMANCE_URL names no endpoint")?;
    let genesis = std::env::var("CONFORMANCE_GENESIS").context("CONFORMANCE_GENESIS names no file")?;
    let told = serde_json::from_slice(&std::fs::read(&genesis)?).with_context(|| format!("cannot read `{genesis}`"))?;
    let client = OnlineClient::<PolkadotConfig>::from_url(&url).await?;
    let state = State { client, url, told };
    for name in OPERATIONS {
        let started = Instant::now();
        let ended = tokio::time::timeout(PATIENCE, state.run(name)).await;
        let (result, why) = match ended {
            Ok(Ok(())) => ("passed", String::new()),
            Ok(Err(error)) => ("failed", format!("{error:#}")),
            Err(_) => ("failed", format!("no answer within {} s", PATIENCE.as_secs())),
        };
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tell(&json!({ "operation": name, "result": result, "why": why, "ms": ms }))?;
    }
    Ok(())
}

fn tell(line: &serde_json::Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn pair(uri: &str) -> Result<Keypair> {
    Ok(Keypair::from_uri(&SecretUri::from_str(uri)?)?)
}

fn key(uri: &str) -> Result<[u8; 32]> {
    Ok(pair(uri)?.public_key().0)
}

fn account(uri: &str) -> Result<Value> {
    Ok(Value::from_bytes(key(uri)?))
}

/// An account as the target of a call.
fn target(uri: &str) -> Result<Value> {
    Ok(Value::unnamed_variant("Id", [account(uri)?]))
}

/// A call inside another.
fn nested<const N: usize>(pallet: &str, call: &str, values: [Value; N]) -> Value {
    Value::unnamed_variant(pallet, [Value::unnamed_variant(call, values)])
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, want: &T) -> Result<()> {
    ensure!(got == want, "{what}: got {got:?}, want {want:?}");
    Ok(())
}

fn transfer(to: &str, rao: u64) -> Result<impl Payload> {
    Ok(dynamic::tx("Balances", "transfer_keep_alive", (target(to)?, rao)))
}

impl State {
    async fn run(&self, name: &str) -> Result<()> {
        match name {
            "connect" => self.connect().await,
            "balance" => self.balance().await,
            "hyperparameters" => self.hyperparameters().await,
            "maps and constants" => self.maps().await,
            "neurons" => self.neurons().await,
            "metagraph" => self.metagraph().await,
            "subscription to heads" => self.heads().await,
            "blocks and events" => self.blocks().await,
            "transfer" => self.transfer().await,
            "serve axon" => self.serve_axon().await,
            "set weights" => self.set_weights().await,
            "set weights, commit-reveal by time lock" => self.commit_timelocked().await,
            "register" => self.register().await,
            "stake" => self.stake().await,
            "commitment" => self.commitment().await,
            "proxy" => self.proxy().await,
            "batch" => self.batch().await,
            "sudo" => self.sudo().await,
            "errors by name" => self.errors().await,
            other => bail!("no operation is called `{other}`"),
        }
    }

    fn first(&self) -> Result<&Subnet> {
        self.told.subnets.first().context("the genesis file has no subnet")
    }

    async fn storage<K, V>(&self, pallet: &str, item: &str, keys: K) -> Result<V>
    where
        K: IntoEncodableValues + IntoDecodableValues,
        V: DecodeAsType,
    {
        let at = self.client.at_current_block().await?;
        let address = dynamic::storage::<K, V>(pallet, item);
        let value = at.storage().fetch(address, keys).await.with_context(|| format!("{pallet}.{item}"))?;
        Ok(value.decode()?)
    }

    async fn free(&self, uri: &str) -> Result<u64> {
        let address = dynamic::storage::<([u8; 32],), Account>("System", "Account");
        let at = self.client.at_current_block().await?;
        let found = at.storage().try_fetch(address, (key(uri)?,)).await?;
        Ok(match found {
            Some(value) => value.decode()?.data.free,
            None => 0,
        })
    }

    /// Signs and submits a call and waits until it is final.
    async fn send(&self, call: &impl Payload, signer: &str) -> Result<Done> {
        let mut transactions = self.client.tx().await?;
        let submitted = transactions.sign_and_submit_then_watch_default(call, &pair(signer)?).await;
        // What the pool says beside the code is in the data of the JSON-RPC error, which only `Debug` shows.
        let submitted = submitted.map_err(|error| anyhow!("{error}: {error:?}"))?;
        let events = submitted.wait_for_finalized_success().await?;
        let mut done = Done { names: Vec::new(), fee: 0 };
        for event in events.iter() {
            let event = event?;
            done.names.push(format!("{}.{}", event.pallet_name(), event.event_name()));
            if event.event_name() == "TransactionFeePaid" {
                #[derive(DecodeAsType)]
                struct Paid {
                    actual_fee: u64,
                }
                done.fee = event.decode_fields_unchecked_as::<Paid>()?.actual_fee;
            }
        }
        Ok(done)
    }

    async fn connect(&self) -> Result<()> {
        let again = OnlineClient::<PolkadotConfig>::from_url(&self.url).await?;
        equal("genesis", &again.genesis_hash(), &self.client.genesis_hash())?;
        let at = again.at_current_block().await?;
        ensure!(at.spec_version() > 0, "no spec version");
        Ok(())
    }

    async fn balance(&self) -> Result<()> {
        equal("//Ferdie", &self.free("//Ferdie").await?, &1_000_000_000_000_000)?;
        for funded in &self.told.accounts {
            equal(&funded.account, &self.free(&funded.account).await?, &funded.balance.rao)?;
        }
        equal("nobody", &self.free("//Nobody").await?, &0)
    }

    async fn hyperparameters(&self) -> Result<()> {
        let told = &self.first()?.hyperparameters;
        equal("tempo", &self.storage::<(u16,), u16>(MODULE, "Tempo", (1,)).await?, &told.tempo)?;
        let immunity = self.storage::<(u16,), u16>(MODULE, "ImmunityPeriod", (1,)).await?;
        equal("immunity period", &Some(immunity), &told.immunity_period)?;
        equal("kappa", &Some(self.storage::<(u16,), u16>(MODULE, "Kappa", (1,)).await?), &told.kappa)?;
        equal("commit-reveal", &self.storage::<(u16,), bool>(MODULE, "CommitRevealWeightsEnabled", (2,)).await?, &true)
    }

    async fn maps(&self) -> Result<()> {
        let at = self.client.at_current_block().await?;
        let mut entries = at.storage().iter(dynamic::storage::<(u16, u16), [u8; 32]>(MODULE, "Keys"), (1u16,)).await?;
        let mut got = BTreeMap::new();
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            got.insert(entry.key()?.decode()?.1, entry.value().decode()?);
        }
        let mut want = BTreeMap::new();
        for (uid, neuron) in (0u16..).zip(&self.first()?.neurons) {
            want.insert(uid, key(&neuron.hotkey)?);
        }
        equal("Keys", &got, &want)?;
        let prefix = at.constants().entry(dynamic::constant::<u16>("System", "SS58Prefix"))?;
        equal("SS58 prefix", &prefix, &42)
    }

    async fn neurons(&self) -> Result<()> {
        let at = self.client.at_current_block().await?;
        let call = dynamic::runtime_api_call::<_, Vec<LiteNeuron>>("NeuronInfoRuntimeApi", "get_neurons_lite", (1u16,));
        let got = at.runtime_apis().call(call).await?;
        let want = &self.first()?.neurons;
        ensure!(got.len() >= want.len(), "there are {} neurons", got.len());
        for (got, want) in got.iter().zip(want) {
            equal("hotkey", &got.hotkey, &key(&want.hotkey)?)?;
            equal("coldkey", &got.coldkey, &key(&want.coldkey)?)?;
        }
        equal("axon", &(got[1].axon_info.ip, got[1].axon_info.port), &(0xcb00_7107, 8091))
    }

    async fn metagraph(&self) -> Result<()> {
        let at = self.client.at_current_block().await?;
        let call = dynamic::runtime_api_call::<_, Option<Graph>>("SubnetInfoRuntimeApi", "get_metagraph", (1u16,));
        let graph = at.runtime_apis().call(call).await?.context("there is no subnet 1")?;
        let told = self.first()?;
        let keys = |part: fn(&Neuron) -> &String| told.neurons.iter().map(|neuron| key(part(neuron))).collect();
        let (hotkeys, coldkeys): (Result<Vec<_>>, Result<Vec<_>>) =
            (keys(|neuron| &neuron.hotkey), keys(|neuron| &neuron.coldkey));
        equal("hotkeys", &graph.hotkeys, &hotkeys?)?;
        equal("coldkeys", &graph.coldkeys, &coldkeys?)?;
        let stakes: Vec<u64> = told.neurons.iter().map(|neuron| neuron.stake.rao).collect();
        equal("alpha stake", &graph.alpha_stake, &stakes)?;
        equal("tempo", &graph.tempo, &told.hyperparameters.tempo)?;
        equal("permits", &graph.validator_permit, &vec![true, true, false, true])
    }

    async fn heads(&self) -> Result<()> {
        let mut best = self.client.stream_best_blocks().await?;
        let first = best.next().await.context("no best block")??.number();
        let second = best.next().await.context("no second best block")??.number();
        equal("best blocks", &second, &(first + 1))?;
        let mut final_ = self.client.stream_blocks().await?;
        let number = final_.next().await.context("no final block")??.number();
        ensure!(number <= second + 1, "finality is ahead: {number}");
        Ok(())
    }

    async fn blocks(&self) -> Result<()> {
        let at = self.client.at_block(1u64).await?;
        let extrinsics = at.extrinsics().fetch().await?;
        let first = extrinsics.iter().next().context("block 1 is empty")??;
        equal("inherent", &(first.pallet_name(), first.call_name()), &("Timestamp", "set"))?;
        let events = first.events().await?;
        let mut names = Vec::new();
        for event in events.iter() {
            names.push(event?.event_name().to_owned());
        }
        ensure!(names.iter().any(|name| name == "ExtrinsicSuccess"), "events of the inherent: {names:?}");
        Ok(())
    }

    async fn transfer(&self) -> Result<()> {
        let before = self.free("//Ferdie").await?;
        let done = self.send(&transfer("//Xerxes", 1_234_567_890)?, "//Ferdie").await?;
        ensure!(done.names.contains(&"Balances.Transfer".to_owned()), "events: {:?}", done.names);
        equal("received", &self.free("//Xerxes").await?, &1_234_567_890)?;
        equal("sent", &(before - self.free("//Ferdie").await?), &(1_234_567_890 + done.fee))
    }

    async fn serve_axon(&self) -> Result<()> {
        let words = (1u16, 1u32, 0xc633_6409u128, 8123u16, 4u8, 4u8, 0u8, 0u8);
        let done = self.send(&dynamic::tx(MODULE, "serve_axon", words), "//Charlie//hot").await?;
        ensure!(done.names.contains(&"SubtensorModule.AxonServed".to_owned()), "events: {:?}", done.names);
        let axon: Axon = self.storage(MODULE, "Axons", (1u16, key("//Charlie//hot")?)).await?;
        equal("axon", &(axon.ip, axon.port), &(0xc633_6409, 8123))
    }

    async fn set_weights(&self) -> Result<()> {
        let words = (1u16, vec![2u16, 3], vec![1u16, 3], 0u64);
        self.send(&dynamic::tx(MODULE, "set_weights", words), "//Bob//hot").await?;
        let weights: Vec<(u16, u16)> = self.storage(MODULE, "Weights", (1u16, 1u16)).await?;
        equal("weights", &weights, &vec![(2, 21_845), (3, 65_535)])
    }

    async fn commit_timelocked(&self) -> Result<()> {
        let words = (2u16, vec![0xabu8; 300], 1u64 << 40, 4u16);
        let done = self.send(&dynamic::tx(MODULE, "commit_timelocked_weights", words), "//Alice//hot").await?;
        let event = "SubtensorModule.TimelockedWeightsCommitted".to_owned();
        ensure!(done.names.contains(&event), "events: {:?}", done.names);
        Ok(())
    }

    async fn register(&self) -> Result<()> {
        let price: u64 = self.storage(MODULE, "Burn", (1u16,)).await?;
        let before = self.free("//Ferdie").await?;
        let call = dynamic::tx(MODULE, "burned_register", (1u16, account("//Ferdie//hot")?));
        let done = self.send(&call, "//Ferdie").await?;
        let uid: u16 = self.storage(MODULE, "Uids", (1u16, key("//Ferdie//hot")?)).await?;
        equal("uid", &uid, &4)?;
        let paid = before - self.free("//Ferdie").await? - done.fee;
        ensure!(paid <= price && paid >= price / 100 * 80, "paid {paid} for a price of {price}");
        Ok(())
    }

    async fn stake(&self) -> Result<()> {
        let (hotkey, held) = (account("//Charlie//hot")?, (key("//Charlie//hot")?, 1u16));
        let call = dynamic::tx(MODULE, "add_stake", (hotkey.clone(), 1u16, 10_000_000_000u64));
        self.send(&call, "//Charlie").await?;
        equal("stake", &self.storage::<_, u64>(MODULE, "TotalHotkeyAlpha", held).await?, &10_000_000_000)?;
        let call = dynamic::tx(MODULE, "remove_stake", (hotkey, 1u16, 4_000_000_000u64));
        self.send(&call, "//Charlie").await?;
        equal("stake left", &self.storage::<_, u64>(MODULE, "TotalHotkeyAlpha", held).await?, &6_000_000_000)
    }

    async fn proxy(&self) -> Result<()> {
        let any = || Value::unnamed_variant("Any", []);
        self.send(&dynamic::tx("Proxy", "add_proxy", (target("//Ferdie")?, any(), 0u32)), "//Eve").await?;
        let before = self.free("//Eve").await?;
        let inner = nested("Balances", "transfer_keep_alive", [target("//Uma")?, Value::from(1_000_000_000u64)]);
        let call = dynamic::tx("Proxy", "proxy", vec![target("//Eve")?, Value::unnamed_variant("None", []), inner]);
        self.send(&call, "//Ferdie").await?;
        equal("paid by the real account", &(before - self.free("//Eve").await?), &1_000_000_000)?;
        equal("received", &self.free("//Uma").await?, &1_000_000_000)
    }

    async fn commitment(&self) -> Result<()> {
        let data = b"https://models.example/7";
        let raw = Value::unnamed_variant(format!("Raw{}", data.len()), [Value::from_bytes(data)]);
        // A bounded vector of fields is a struct around a list of them.
        let fields = Value::unnamed_composite([Value::unnamed_composite([raw])]);
        let info = Value::named_composite([("fields", fields)]);
        let call = dynamic::tx("Commitments", "set_commitment", vec![Value::from(1u64), info]);
        self.send(&call, "//Bob//hot").await?;
        let got: Value = self.storage("Commitments", "CommitmentOf", (1u16, key("//Bob//hot")?)).await?;
        let hex = data.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        ensure!(got.to_string().contains(&hex), "the commitment is {got}");
        Ok(())
    }

    async fn batch(&self) -> Result<()> {
        let transfer = |to| Ok(nested("Balances", "transfer_keep_alive", [target(to)?, Value::from(1_000_000_000u64)]));
        let inner: Result<Vec<Value>> = ["//Vic", "//Wil"].into_iter().map(transfer).collect();
        self.send(&dynamic::tx("Utility", "batch_all", vec![Value::unnamed_composite(inner?)]), "//Ferdie").await?;
        let got = (self.free("//Vic").await?, self.free("//Wil").await?);
        equal("both", &got, &(1_000_000_000, 1_000_000_000))
    }

    async fn sudo(&self) -> Result<()> {
        let inner = nested("AdminUtils", "sudo_set_weights_set_rate_limit", [Value::from(1u64), Value::from(500u64)]);
        self.send(&dynamic::tx("Sudo", "sudo", vec![inner]), "//Alice").await?;
        equal("rate limit", &self.storage::<_, u64>(MODULE, "WeightsSetRateLimit", (1u16,)).await?, &500)
    }

    async fn errors(&self) -> Result<()> {
        let stranger = dynamic::tx(MODULE, "add_stake", (account("//Stranger")?, 1u16, 1_000_000_000u64));
        self.refused(&stranger, "//Bob", "HotKeyAccountNotExists").await?;
        self.refused(&dynamic::tx(MODULE, "start_call", (1u16,)), "//Bob", "NotSubnetOwner").await?;
        let weights = dynamic::tx(MODULE, "set_weights", (1u16, vec![2u16], vec![1u16], 0u64));
        self.refused(&weights, "//Bob//hot", "Custom error: 6").await
    }

    async fn refused(&self, call: &impl Payload, signer: &str, part: &str) -> Result<()> {
        let Err(error) = self.send(call, signer).await else { bail!("{part}: it succeeded") };
        ensure!(format!("{error:#}").contains(part), "the reason names no `{part}`: {error:#}");
        Ok(())
    }
}
