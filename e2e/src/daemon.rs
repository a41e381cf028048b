//! Processes that outlive this program: started once, found again by a later run, stopped by their own id.
//!
//! A process is recognised by process id, start time and boot, since ids are given out again. What it was started with is
//! recorded as a hash, so that a changed flag, configuration file or certificate restarts it and nothing else does.
//! Each process carries a mark in its environment: one that a killed run started but did not record is found all the same.

use std::{
    ffi::OsString,
    fs,
    io::ErrorKind,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{command, layout};

/// The variable that marks a process as part of the cluster in the folder it names.
pub const MARK: &str = "MYCELIUM_CLUSTER_MEMBER";

/// A log that grew beyond this is set aside, once, when its process starts again.
const LOG_BYTES_MAX: u64 = 32 << 20;

/// How often a process that should end or become healthy is looked at.
const POLL: Duration = Duration::from_millis(100);

/// A process as it should be.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// Short name; names the process file and the log.
    pub name: String,
    /// The program, by the path that tells a multi-call program what it is.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables it gets beside a plain PATH.
    pub env: Vec<(String, String)>,
    /// Files whose content it reads once at its start.
    pub inputs: Vec<PathBuf>,
    /// The network namespace it runs in.
    pub netns: PathBuf,
}

/// Where the files about processes lie.
#[derive(Clone, Debug)]
pub struct Registry {
    run: PathBuf,
    logs: PathBuf,
    mark: String,
}

/// What is known about a started process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    pid: i32,
    /// Clock ticks between boot and start, as the kernel counts them.
    start_ticks: u64,
    boot_id: String,
    /// Hash of everything the process was started with.
    identity: String,
}

/// How a process stands against what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs, started as it would be started now.
    Running(i32),
    /// It runs, started with other arguments, configuration or certificates.
    Outdated(i32),
    /// It does not run.
    Stopped,
}

impl Daemon {
    /// A daemon without arguments; the caller adds them.
    pub fn new(name: impl Into<String>, program: PathBuf, netns: &Path) -> Self {
        let env = Vec::new();
        Self { name: name.into(), program, args: Vec::new(), env, inputs: Vec::new(), netns: netns.to_owned() }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds `--flag=value`.
    #[must_use]
    pub fn flag(mut self, flag: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        let mut arg = OsString::from(format!("--{flag}="));
        arg.push(value);
        self.args.push(arg);
        self
    }

    /// Adds `--flag=path`, and restarts the process when the file's content changes.
    #[must_use]
    pub fn file(mut self, flag: &str, path: PathBuf) -> Self {
        self = self.flag(flag, &path);
        self.inputs.push(path);
        self
    }

    fn identity(&self) -> Result<String> {
        let mut hash = Sha256::new();
        let mut word = |bytes: &[u8]| {
            hash.update(bytes.len().to_be_bytes());
            hash.update(bytes);
        };
        // The programs' folder is named after what they were built from, so the path stands for the content.
        word(self.program.as_os_str().as_encoded_bytes());
        for arg in &self.args {
            word(arg.as_encoded_bytes());
        }
        for (key, value) in &self.env {
            word(key.as_bytes());
            word(value.as_bytes());
        }
        for input in &self.inputs {
            word(&fs::read(input).with_context(|| format!("{}: cannot read `{}`", self.name, input.display()))?);
        }
        // The number of a namespace is new with every namespace, so what runs in a lost one counts as outdated.
        word(&fs::metadata(&self.netns).map_or(0, |netns| netns.ino()).to_be_bytes());
        Ok(hex::encode(hash.finalize()))
    }
}

impl Registry {
    /// The registry of the cluster in this folder.
    pub fn new(layout: &layout::Layout) -> Self {
        Self { run: layout.run(), logs: layout.logs(), mark: layout.cluster().display().to_string() }
    }

    /// How the process stands.
    ///
    /// # Errors
    /// When an input file cannot be read.
    pub fn state(&self, daemon: &Daemon) -> Result<State> {
        let Some(record) = self.record(&daemon.name).filter(Record::is_alive) else { return Ok(State::Stopped) };
        let current = record.identity == daemon.identity()?;
        Ok(if current { State::Running(record.pid) } else { State::Outdated(record.pid) })
    }

    /// The id of the process with this name, if it runs.
    pub fn pid(&self, name: &str) -> Option<i32> {
        self.record(name).filter(Record::is_alive).map(|record| record.pid)
    }

    /// Starts the process, detached from this one and its terminal, and records it.
    ///
    /// # Errors
    /// When the program, its log or its record cannot be opened.
    pub fn start(&self, daemon: &Daemon) -> Result<()> {
        let log = self.open_log(&daemon.name)?;
        let errors = log.try_clone().context("cannot share the log")?;
        // setsid and nsenter replace themselves by the program, so the id of the child is the id of the process.
        let mut command = Command::new("setsid");
        command
            .arg("nsenter")
            .arg(format!("--net={}", daemon.netns.display()))
            .arg("--")
            .arg(&daemon.program)
            .args(&daemon.args)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env(MARK, &self.mark)
            .envs(daemon.env.iter().map(|(key, value)| (key, value)))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        let identity = daemon.identity()?;
        let child = command.spawn().with_context(|| format!("cannot start `{}`", command::line(&command)))?;
        let pid = i32::try_from(child.id()).context("process id out of range")?;
        let start_ticks = stat(pid).map_or(0, |stat| stat.start_ticks);
        let record = Record { pid, start_ticks, boot_id: boot_id(), identity };
        layout::write_file(&self.record_file(&daemon.name), &serde_json::to_vec(&record)?, 0o644)?;
        Ok(())
    }

    /// Waits until `healthy` answers yes.
    ///
    /// # Errors
    /// At once when the process ends, and after `deadline` when it stays unhealthy; both with the end of its log.
    pub fn wait_healthy(
        &self,
        name: &str,
        deadline: Duration,
        mut healthy: impl FnMut() -> Result<(), String>,
    ) -> Result<()> {
        let begun = Instant::now();
        loop {
            let alive = self.pid(name).is_some();
            let answer = healthy();
            match answer {
                Ok(()) if alive => return Ok(()),
                _ if !alive => bail!("{name} ended right after its start. {}", self.log_tail(name)),
                Err(reason) if begun.elapsed() > deadline => {
                    bail!("{name} is not healthy after {} s: {reason}. {}", deadline.as_secs(), self.log_tail(name))
                }
                _ => thread::sleep(POLL),
            }
        }
    }

    /// Stops the process: asks it, and ends it when it does not listen within `patience`. Nothing to do if it does not run.
    pub fn stop(&self, name: &str, patience: Duration) {
        if let Some(pid) = self.pid(name) {
            signal(pid, Signal::TERM);
            if !wait_gone(&[pid], patience) {
                signal(pid, Signal::KILL);
                wait_gone(&[pid], Duration::from_secs(5));
            }
        }
        // Without the file nothing claims that the process should run.
        let _ = fs::remove_file(self.record_file(name));
    }

    /// Every process with the cluster's mark, recorded or not, except this one.
    pub fn marked(&self) -> Vec<i32> {
        let mark = format!("{MARK}={}", self.mark);
        let own = std::process::id();
        all_pids()
            .into_iter()
            .filter(|pid| u32::try_from(*pid) != Ok(own))
            .filter(|pid| {
                let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
            })
            .collect()
    }

    /// The end of a process' log, introduced by its path.
    pub fn log_tail(&self, name: &str) -> String {
        let path = self.log_file(name);
        let text = fs::read(&path).unwrap_or_default();
        format!("The end of {}:\n{}", path.display(), command::tail(&String::from_utf8_lossy(&text)))
    }

    /// The log of a process.
    pub fn log_file(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    fn open_log(&self, name: &str) -> Result<fs::File> {
        fs::create_dir_all(&self.logs).with_context(|| format!("cannot make `{}`", self.logs.display()))?;
        let path = self.log_file(name);
        if fs::metadata(&path).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
            let _ = fs::rename(&path, path.with_extension("log.1"));
        }
        let file = fs::OpenOptions::new().append(true).create(true).mode(0o640).open(&path);
        file.with_context(|| format!("cannot open the log `{}`", path.display()))
    }

    fn record_file(&self, name: &str) -> PathBuf {
        self.run.join(format!("{name}.pid"))
    }

    fn record(&self, name: &str) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.record_file(name)).ok()?).ok()
    }
}

impl Record {
    fn is_alive(&self) -> bool {
        self.boot_id == boot_id()
            && stat(self.pid).is_some_and(|stat| stat.start_ticks == self.start_ticks && !stat.dead)
    }
}

struct Stat {
    start_ticks: u64,
    dead: bool,
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The second field is the name in brackets and may itself hold spaces and brackets.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some(Stat { start_ticks, dead: matches!(state, "Z" | "X") })
}

/// Names the present boot of the machine; what ran under another one is gone.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The ids of all processes of the machine.
pub fn all_pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Sends a signal; a process that is already gone is what the caller wants anyway.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Waits until none of these processes is left; returns whether that came true in time.
pub fn wait_gone(pids: &[i32], patience: Duration) -> bool {
    let begun = Instant::now();
    loop {
        if pids.iter().all(|pid| stat(*pid).is_none_or(|stat| stat.dead)) {
            return true;
        }
        if begun.elapsed() > patience {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The memory that a process has in RAM, in bytes; shared pages count for everyone who shares them.
pub fn resident_bytes(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Removes a file that may not be there.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove_if_present(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(folder: &Path) -> Registry {
        Registry { run: folder.join("run"), logs: folder.join("logs"), mark: folder.display().to_string() }
    }

    fn shell(name: &str, script: &str) -> Daemon {
        // The test's own namespace needs no rights to enter... but nsenter does; so these tests ask for root and skip without it.
        Daemon::new(name, PathBuf::from("/bin/sh"), Path::new("/proc/self/ns/net")).arg("-c").arg(script)
    }

    #[test]
    fn a_name_with_brackets_does_not_confuse_the_start_time() {
        let text = "12 (a) b (c)) S 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 1 2";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.start_ticks, stat.dead), (777, false));
        assert!(parse_stat(&text.replace(") S", ") Z")).unwrap().dead);
        assert!(parse_stat("no brackets").is_none());
    }

    #[test]
    fn a_reused_process_id_does_not_count_as_running() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(folder.path());
        let own = i32::try_from(std::process::id()).unwrap();
        let ticks = stat(own).unwrap().start_ticks;
        let record = |start_ticks, boot_id: &str| {
            let record = Record { pid: own, start_ticks, boot_id: boot_id.to_owned(), identity: String::new() };
            layout::write_file(&registry.record_file("x"), &serde_json::to_vec(&record).unwrap(), 0o644).unwrap();
            registry.pid("x")
        };
        assert_eq!(record(ticks, &boot_id()), Some(own));
        assert_eq!(record(ticks + 1, &boot_id()), None);
        assert_eq!(record(ticks, "another boot"), None);
    }

    #[test]
    fn changed_arguments_and_changed_input_files_make_a_process_outdated() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("config");
        fs::write(&input, "one").unwrap();
        let daemon = shell("x", "true").file("config", input.clone());
        let first = daemon.identity().unwrap();
        assert_eq!(first, daemon.identity().unwrap());
        assert_ne!(first, daemon.clone().arg("more").identity().unwrap());
        fs::write(&input, "two").unwrap();
        assert_ne!(first, daemon.identity().unwrap());
    }

    #[test]
    fn a_started_process_is_found_by_record_and_mark_and_stopped() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(folder.path());
        let daemon = shell("sleeper", "echo ready; exec sleep 600");
        registry.start(&daemon).unwrap();
        let said = || {
            if fs::read(registry.log_file("sleeper")).is_ok_and(|log| log == b"ready\n") {
                Ok(())
            } else {
                Err("silent".into())
            }
        };
        registry.wait_healthy("sleeper", Duration::from_secs(10), said).unwrap();
        let pid = registry.pid("sleeper").unwrap();
        assert_eq!(registry.state(&daemon).unwrap(), State::Running(pid));
        assert_eq!(registry.state(&daemon.clone().arg("more")).unwrap(), State::Outdated(pid));
        assert_eq!(registry.marked(), [pid]);
        registry.stop("sleeper", Duration::from_secs(5));
        assert_eq!(registry.state(&daemon).unwrap(), State::Stopped);
        assert!(registry.marked().is_empty());
    }

    #[test]
    fn a_process_that_ends_at_once_is_reported_with_its_log() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(folder.path());
        registry.start(&shell("fails", "echo address already in use >&2; exit 1")).unwrap();
        let error =
            registry.wait_healthy("fails", Duration::from_secs(30), || Err("refused".into())).unwrap_err().to_string();
        assert!(error.contains("ended right after") && error.contains("address already in use"), "{error}");
    }
}
