//! The program as a client of a running sidecar: it asks over HTTP and shows the answer, and knows nothing else.
//!
//! What is wrong with a question is said by the sidecar, in whose words it is repeated here.

mod client;
mod show;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::Value;
use sidecar_util::http::{NodesBody, StatusBody, VerifyBody, WatchBlock, WatchChange, WatchSnapshot};

use crate::args::{AskArgs, Command, NodesArgs, Output, VerifyArgs, WeightsArgs};
use crate::reads::MatrixBody;
use client::{Client, Query};

/// Exit code of `verify` when the answer is no.
const NOT_VERIFIED: u8 = 2;

/// Nodes of one request.
const PAGE: usize = 1024;

/// Asks what the command says and shows the answer.
///
/// # Errors
/// No sidecar answers, or it refuses, in its own words.
pub async fn ask(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Verify(args) => return verify(&args).await,
        Command::Nodes(args) => nodes(&args).await?,
        Command::Weights(args) => weights(&args).await?,
        Command::Status(args) => status(&args).await?,
        Command::Watch(args) => watch(&args).await?,
        Command::Run(_) | Command::Openapi => bail!("this command asks nobody"),
    }
    Ok(ExitCode::SUCCESS)
}

async fn verify(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/validators/{}/verify", client::encode(&args.hotkey));
    let value = Client::new(&args.ask)?.get(&path, &[]).await?;
    let body: VerifyBody = read(&value)?;
    match args.ask.output {
        Output::Json => show_json(&value)?,
        output => show(&show::verification(&body, output))?,
    }
    Ok(if body.verified { ExitCode::SUCCESS } else { ExitCode::from(NOT_VERIFIED) })
}

async fn nodes(args: &NodesArgs) -> anyhow::Result<()> {
    let client = Client::new(&args.ask)?;
    let given = [
        ("kind", &args.kind),
        ("state", &args.state),
        ("min_stake", &args.min_stake),
        ("max_stake", &args.max_stake),
        ("permit", &args.permit),
        ("min_trust", &args.min_trust),
        ("max_trust", &args.max_trust),
        ("min_incentive", &args.min_incentive),
        ("max_incentive", &args.max_incentive),
        ("active", &args.active),
        ("reachable", &args.reachable),
        ("coldkey", &args.coldkey),
        ("hotkey", &args.hotkey),
        ("uid", &args.uid),
        ("updated_within", &args.updated_within),
        ("sort", &args.sort),
    ];
    let mut query: Query = given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect();
    if args.desc {
        query.push(("desc", "true".to_owned()));
    }
    let wanted = args.limit.unwrap_or(usize::MAX);
    let mut all = page(&client, &query, wanted.min(PAGE)).await?;
    while let (Some(next), true) = (all["next"].as_str().map(str::to_owned), count(&all) < wanted) {
        let mut query = query.clone();
        query.push(("cursor", next));
        let mut more = page(&client, &query, (wanted - count(&all)).min(PAGE)).await?;
        let nodes = more["nodes"].as_array_mut().map(std::mem::take).unwrap_or_default();
        if let Some(all) = all["nodes"].as_array_mut() {
            all.extend(nodes);
        }
        all["next"] = more["next"].take();
    }
    match args.ask.output {
        Output::Json => show_json(&all),
        output => show(&show::nodes(&read::<NodesBody>(&all)?, output)),
    }
}

async fn page(client: &Client, query: &Query, limit: usize) -> anyhow::Result<Value> {
    let mut query = query.clone();
    query.push(("limit", limit.to_string()));
    client.get("/v1/nodes", &query).await
}

fn count(body: &Value) -> usize {
    body["nodes"].as_array().map_or(0, Vec::len)
}

async fn weights(args: &WeightsArgs) -> anyhow::Result<()> {
    let given = [("uid", &args.uid), ("mechanism", &args.mechanism), ("block", &args.block)];
    let query: Query = given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect();
    let value = Client::new(&args.ask)?.get("/v1/weights", &query).await?;
    match args.ask.output {
        Output::Json => show_json(&value),
        output => show(&show::matrix(&read::<MatrixBody>(&value)?, output)),
    }
}

async fn status(args: &AskArgs) -> anyhow::Result<()> {
    let value = Client::new(args)?.get("/v1/status", &[]).await?;
    match args.output {
        Output::Json => show_json(&value),
        output => show(&show::status(&read::<StatusBody>(&value)?, output)),
    }
}

async fn watch(args: &AskArgs) -> anyhow::Result<()> {
    let mut events = Client::new(args)?.events("/v1/watch").await?;
    while let Some((event, data)) = events.next().await? {
        if args.output == Output::Json {
            let data: Value = serde_json::from_str(&data).context("an event of the sidecar could not be read")?;
            show(&format!("{}\n", serde_json::json!({"event": event, "data": data})))?;
            continue;
        }
        let text = match event.as_str() {
            "snapshot" => show::snapshot(&parse::<WatchSnapshot>(&data)?, args.output),
            "registry" => show::change(&parse::<WatchChange>(&data)?),
            "metagraph" => show::block(&parse::<WatchBlock>(&data)?),
            // A sidecar newer than this program may tell more.
            _ => continue,
        };
        show(&text)?;
    }
    bail!("the sidecar ended the stream: it stops, or restarts")
}

fn parse<T: serde::de::DeserializeOwned>(data: &str) -> anyhow::Result<T> {
    serde_json::from_str(data).context("an event of the sidecar could not be read: are both of the same version?")
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> anyhow::Result<T> {
    serde::Deserialize::deserialize(value)
        .context("the sidecar's answer could not be read: are both of the same version?")
}

fn show_json(value: &Value) -> anyhow::Result<()> {
    show(&format!("{value:#}\n"))
}

fn show(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("the answer could not be written")
}
