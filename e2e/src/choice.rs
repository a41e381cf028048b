//! Which cluster `up` brings up: processes of its own, or kind in Docker.

use std::{fmt, process::Command, str::FromStr};

use anyhow::{Result, bail};

use crate::command;

/// The two ways to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Processes on this machine.
    Local,
    /// kind, in a Docker engine.
    Kind,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "local" => Ok(Self::Local),
            "kind" => Ok(Self::Kind),
            other => Err(format!("`{other}` is no cluster: choose local or kind")),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Kind => "kind",
        })
    }
}

/// What the choice depends on.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// What was asked for.
    pub wanted: Option<Kind>,
    /// A cluster of processes is on disk.
    pub local_exists: bool,
    /// A cluster of kind is on disk.
    pub kind_exists: bool,
    /// A Docker engine answers.
    pub docker_answers: bool,
}

/// Decides. What runs is kept; else Docker is taken where it answers, since it needs no root.
///
/// # Errors
/// When what was asked for is not to be had.
pub fn choose(facts: Facts) -> Result<Kind> {
    let kind = match facts.wanted {
        Some(Kind::Local) if facts.kind_exists => {
            bail!("a cluster of kind is up: run `make down` before CLUSTER=local")
        }
        Some(Kind::Kind) if facts.local_exists => bail!("a local cluster is up: run `make down` before CLUSTER=kind"),
        Some(kind) => kind,
        None if facts.local_exists => Kind::Local,
        None if facts.kind_exists || facts.docker_answers => Kind::Kind,
        None => Kind::Local,
    };
    if kind == Kind::Kind && !facts.docker_answers {
        bail!("CLUSTER=kind needs a Docker engine and none answers `docker info`: start it, or use CLUSTER=local");
    }
    Ok(kind)
}

/// Whether a Docker engine answers: the command alone, without an engine, is no use.
pub fn docker_answers() -> bool {
    command::succeeds(Command::new("docker").args(["info", "--format", "{{.ServerVersion}}"])).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(wanted: Option<Kind>, local_exists: bool, kind_exists: bool, docker_answers: bool) -> Result<Kind> {
        choose(Facts { wanted, local_exists, kind_exists, docker_answers })
    }

    #[test]
    fn docker_is_used_where_it_answers_and_nothing_runs_yet() {
        assert_eq!(decide(None, false, false, true).unwrap(), Kind::Kind);
        assert_eq!(decide(None, false, false, false).unwrap(), Kind::Local);
    }

    #[test]
    fn what_runs_is_kept_when_docker_appears() {
        assert_eq!(decide(None, true, false, true).unwrap(), Kind::Local);
        assert!(decide(Some(Kind::Kind), true, false, true).unwrap_err().to_string().contains("make down"));
        assert!(decide(Some(Kind::Local), false, true, true).unwrap_err().to_string().contains("make down"));
    }

    #[test]
    fn kind_without_an_engine_is_refused_with_the_way_out() {
        assert!(decide(Some(Kind::Kind), false, false, false).unwrap_err().to_string().contains("CLUSTER=local"));
        assert!(decide(None, false, true, false).is_err(), "its cluster cannot be reached");
        assert!("docker".parse::<Kind>().unwrap_err().contains("local or kind"));
    }
}
