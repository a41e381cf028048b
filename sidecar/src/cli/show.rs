//! Answers as people read them: tables without lines, as kubectl's.

use std::fmt::Write as _;

use comfy_table::{ContentArrangement, Table, presets};
use sidecar_util::http::{
    EntryBody, NodeBody, NodesBody, StatusBody, VerifyBody, WatchBlock, WatchChange, WatchSnapshot,
};
use sidecar_util::{RAO_PER_TAO, Score, Tao};

use crate::args::Output;
use crate::reads::MatrixBody;

/// What stands where nothing is known.
const NONE: &str = "-";

fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(heads.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let mut text = String::new();
    for line in table.to_string().lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The serde name of a unit variant.
fn word<T: serde::Serialize>(value: T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => NONE.to_owned(),
    }
}

fn or_none<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| value.to_string())
}

fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

fn share(score: Score) -> String {
    format!("{:.4}", score.as_f64())
}

/// Whole numbers need no decimals, and nobody reads nine of them.
fn amount(tao: Tao) -> String {
    if tao.rao.is_multiple_of(RAO_PER_TAO) { tao.to_string() } else { format!("{:.4}", tao.as_f64()) }
}

pub(super) fn verification(body: &VerifyBody, output: Output) -> String {
    let mut heads = vec!["HOTKEY", "VERIFIED", "REASON", "UID", "STAKE", "BLOCK"];
    let mut row = vec![
        body.hotkey.to_string(),
        yes_no(body.verified),
        body.reason.clone(),
        or_none(body.uid),
        amount(body.stake),
        body.block.to_string(),
    ];
    if output == Output::Wide {
        heads.extend(["MINIMUM", "CACHED"]);
        row.extend([amount(body.minimum_stake), yes_no(body.cached)]);
    }
    table(&heads, [row])
}

pub(super) fn nodes(body: &NodesBody, output: Output) -> String {
    if body.nodes.is_empty() {
        return format!("no nodes at block {}\n", body.block);
    }
    let mut heads = vec!["UID", "HOTKEY", "KIND", "STATE", "STAKE", "PERMIT", "VTRUST", "INCENTIVE", "UPDATED", "AXON"];
    if output == Output::Wide {
        heads.extend(["COLDKEY", "ACTIVE", "REACHABLE", "REASON"]);
    }
    let row = |node: &NodeBody| {
        let neuron = &node.neuron;
        let axon = neuron.axon.as_ref().map(|axon| std::net::SocketAddr::new(axon.ip, axon.port));
        let mut row = vec![
            neuron.uid.to_string(),
            neuron.hotkey.to_string(),
            word(node.kind),
            word(node.state),
            amount(neuron.total_stake),
            yes_no(neuron.validator_permit),
            share(neuron.vtrust),
            share(neuron.incentive),
            body.block.saturating_sub(neuron.last_update).to_string(),
            or_none(axon),
        ];
        if output == Output::Wide {
            row.extend([
                neuron.coldkey.to_string(),
                yes_no(neuron.active),
                node.reachable.map_or_else(|| NONE.to_owned(), yes_no),
                node.reason.clone(),
            ]);
        }
        row
    };
    table(&heads, body.nodes.iter().map(row))
}

pub(super) fn matrix(body: &MatrixBody, output: Output) -> String {
    if body.rows.is_empty() {
        return format!("no weights at block {}\n", body.block);
    }
    let rows = body.rows.iter().flat_map(|row| {
        let sum: u32 = row.values.iter().map(|one| u32::from(one.value)).sum();
        row.values.iter().map(move |one| {
            let part = if sum == 0 { 0.0 } else { f64::from(one.value) / f64::from(sum) };
            let mut cells = vec![row.uid.to_string(), one.uid.to_string(), format!("{part:.4}")];
            if output == Output::Wide {
                cells.push(one.value.to_string());
            }
            cells
        })
    });
    let heads: &[&str] =
        if output == Output::Wide { &["FROM", "TO", "SHARE", "RAW"] } else { &["FROM", "TO", "SHARE"] };
    table(heads, rows)
}

pub(super) fn status(body: &StatusBody, output: Output) -> String {
    let mut rows: Vec<(&str, String)> = vec![
        ("NETWORK", body.network.clone()),
        ("KIND", word(body.kind)),
        ("HOTKEY", body.hotkey.to_string()),
        ("NETUID", body.netuid.to_string()),
        ("CHAIN", if body.chain.synced { "synced".into() } else { body.chain.error.clone().unwrap_or_default() }),
        ("BLOCK", or_none(body.chain.block)),
        ("AGE", body.chain.age_s.map_or_else(|| NONE.to_owned(), |age| format!("{age}s"))),
    ];
    match &body.neuron {
        None => rows.push(("UID", "not registered".to_owned())),
        Some(neuron) => rows.extend([
            ("UID", neuron.uid.to_string()),
            ("STAKE", amount(neuron.total_stake)),
            ("PERMIT", yes_no(neuron.validator_permit)),
            ("VTRUST", share(neuron.vtrust)),
        ]),
    }
    let states = body.registry.states.iter().map(|(state, count)| format!("{count} {}", word(state)));
    rows.push(("REGISTRY", states.collect::<Vec<_>>().join(", ")));
    if let Some(signer) = &body.signer {
        let why = signer.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
        rows.push(("SIGNER", word(signer.state) + &why));
    }
    if let Some(group) = &body.group {
        rows.extend([
            ("ROLE", word(group.role)),
            ("LEADER", or_none(group.leader)),
            ("VOTERS", group.voters.len().to_string()),
        ]);
    }
    if output == Output::Wide {
        rows.extend([
            ("ENDPOINT", or_none(body.chain.endpoint.as_ref())),
            ("GENESIS", or_none(body.chain.genesis_hash)),
            ("SPEC", or_none(body.chain.spec_version)),
            ("VERSION", body.version.clone()),
        ]);
    }
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:width$}   {value}");
        text
    })
}

fn entry(entry: &EntryBody) -> Vec<String> {
    vec![
        entry.uid.to_string(),
        entry.hotkey.to_string(),
        word(entry.kind),
        word(entry.state),
        entry.reason.clone(),
        amount(entry.stake),
    ]
}

pub(super) fn snapshot(body: &WatchSnapshot, output: Output) -> String {
    // The tables that follow are one line each: the whole registry only for who wants to see it.
    if output != Output::Wide {
        return format!("{:<13} block {}, {} entries\n", "snapshot", or_none(body.block), body.entries.len());
    }
    table(&["UID", "HOTKEY", "KIND", "STATE", "REASON", "STAKE"], body.entries.iter().map(entry))
}

pub(super) fn change(body: &WatchChange) -> String {
    format!("{:<13} {}\n", body.event, entry(&body.entry).join("  "))
}

pub(super) fn block(body: &WatchBlock) -> String {
    format!("{:<13} {} {}\n", "metagraph", body.block, body.block_hash)
}
