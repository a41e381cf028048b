//! What a cluster is made of and what was there before it, on disk: a later run needs both, to repair and to leave nothing behind.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{
    addresses::{Addresses, DEFAULT_NETWORK},
    daemon,
    layout::{Layout, write_file},
};

/// More nodes than this do not fit the machines that this is made for, nor the addresses reserved for nodes.
pub const NODES_MAX: u8 = 20;

/// Settings of the whole machine that kubelet changes; they are put back.
const KERNEL_SETTINGS: [&str; 6] = [
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];

/// What was asked for on the command line.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Number of nodes.
    pub nodes: Option<u8>,
    /// The cluster's network, a /15.
    pub network: Option<String>,
}

/// The record of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Number of nodes, from 1.
    pub nodes: u8,
    /// The network, a /15.
    pub network: String,
    /// The boot in which the cluster was last started.
    pub boot_id: String,
    /// Kernel settings before the first start.
    pub kernel_settings: BTreeMap<String, String>,
}

impl State {
    /// The record of the cluster in this layout, if there is one.
    ///
    /// # Errors
    /// When the file is there but cannot be read.
    pub fn load(layout: &Layout) -> Result<Option<Self>> {
        let path = layout.state_file();
        let Ok(text) = fs::read(&path) else { return Ok(None) };
        let state = serde_json::from_slice(&text);
        state.map(Some).with_context(|| format!("`{}` is damaged: run `make down`, then `make up`", path.display()))
    }

    /// The record as it should be, from the one on disk and what was asked for.
    ///
    /// # Errors
    /// When a running cluster cannot become what was asked for.
    pub fn settle(present: Option<Self>, wanted: &Wanted) -> Result<Self> {
        if let Some(nodes) = wanted.nodes.filter(|nodes| !(1..=NODES_MAX).contains(nodes)) {
            bail!("NODES={nodes} is out of range: choose 1 to {NODES_MAX}");
        }
        let Some(mut state) = present else {
            return Ok(Self {
                nodes: wanted.nodes.unwrap_or(1),
                network: wanted.network.clone().unwrap_or_else(|| DEFAULT_NETWORK.to_owned()),
                boot_id: daemon::boot_id(),
                kernel_settings: read_kernel_settings(),
            });
        };
        match wanted.nodes {
            Some(nodes) if nodes < state.nodes => {
                bail!("the cluster has {} nodes and NODES={nodes} asks for fewer: run `make down` first", state.nodes)
            }
            Some(nodes) => state.nodes = nodes,
            None => {}
        }
        match &wanted.network {
            Some(network) if *network != state.network => {
                bail!("the cluster has the network {} and not {network}: run `make down` first", state.network)
            }
            _ => Ok(state),
        }
    }

    /// Writes the record.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, layout: &Layout) -> Result<()> {
        write_file(&layout.state_file(), &serde_json::to_vec_pretty(self)?, 0o644)?;
        Ok(())
    }

    /// The network's addresses.
    ///
    /// # Errors
    /// When the recorded or wanted network is not one.
    pub fn addresses(&self) -> Result<Addresses> {
        self.network.parse()
    }

    /// The names of the nodes.
    pub fn node_names(&self) -> Vec<String> {
        (1..=self.nodes).map(|number| format!("mycelium-{number}")).collect()
    }

    /// Puts the kernel's settings back to what they were before the cluster.
    pub fn restore_kernel_settings(&self) {
        for (key, value) in &self.kernel_settings {
            let path = format!("/proc/sys/{key}");
            if fs::read_to_string(&path).is_ok_and(|present| present.trim() != value) {
                // A setting that cannot be written now could not be written by kubelet either.
                let _ = fs::write(path, value);
            }
        }
    }
}

fn read_kernel_settings() -> BTreeMap<String, String> {
    let read = |key: &&str| {
        let value = fs::read_to_string(format!("/proc/sys/{key}")).ok()?;
        Some(((*key).to_owned(), value.trim().to_owned()))
    };
    KERNEL_SETTINGS.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(present: Option<u8>, nodes: Option<u8>) -> Result<u8> {
        let present = match present {
            Some(nodes) => Some(State::settle(None, &Wanted { nodes: Some(nodes), network: None })?),
            None => None,
        };
        Ok(State::settle(present, &Wanted { nodes, network: None })?.nodes)
    }

    #[test]
    fn nodes_are_kept_grow_and_never_shrink() {
        assert_eq!(settle(None, None).unwrap(), 1);
        assert_eq!(settle(Some(3), None).unwrap(), 3);
        assert_eq!(settle(Some(1), Some(3)).unwrap(), 3);
        assert!(settle(Some(3), Some(1)).unwrap_err().to_string().contains("make down"));
        assert!(settle(None, Some(0)).unwrap_err().to_string().contains("1 to 20"));
    }

    #[test]
    fn a_running_cluster_keeps_its_network() {
        let state = State::settle(None, &Wanted::default()).unwrap();
        let other = Wanted { nodes: None, network: Some("10.200.0.0/15".to_owned()) };
        assert!(State::settle(Some(state.clone()), &other).unwrap_err().to_string().contains("make down"));
        let same = Wanted { nodes: None, network: Some(state.network.clone()) };
        assert_eq!(State::settle(Some(state.clone()), &same).unwrap(), state);
    }
}
