#!/usr/bin/env python3
"""Runs unmodified clients against the development chain and reports what works.

Each client has an environment of its own with pinned packages, a chain of its own on a free loopback port, and a script
that does what people do with it and compares what it reads with what the chain was told. The environments lie in
`$MYCELIUM_HOME/conformance`, keyed by what is pinned; the report goes to `$CARGO_TARGET_DIR/conformance/report.json`.
New pins are made by `uv pip compile --universal --python-version 3.10`, which gives one file for every Python.

    run.py                    everything
    run.py --only bittensor   clients whose name contains a text
    run.py --table            prints the table of the last report, as Markdown
    run.py --readme           writes that table into README.md
    run.py --python STEM      prints the Python of the environment `requirements-STEM.txt`, made if it is not there
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = Path(os.environ.get("MYCELIUM_HOME", Path.home() / ".cache" / "mycelium")) / "conformance"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
DEVCHAIN = Path(os.environ.get("MYCELIUM_DEVCHAIN", TARGET / "release" / "mycelium-devchain"))
REPORT = TARGET / "conformance" / "report.json"
README = ROOT / "README.md"
# What stands between these lines of README.md is the table.
README_MARKS = ("<!-- conformance: written by `run.py --readme` -->\n", "<!-- conformance: end -->\n")

# Versions for which every pinned package has a wheel, the preferred first.
PYTHONS = ((3, 13), (3, 12), (3, 11), (3, 10))
# Two cores are the smallest machine that this is run on, and a client waits for blocks most of the time.
CLIENTS_AT_ONCE = 3
# Making an environment downloads some tens of megabytes.
ENVIRONMENT_TIMEOUT_S = 600
CHAIN_START_TIMEOUT_S = 30
CLIENT_TIMEOUT_S = 150
# As the fast localnet has them.
BLOCK_TIME = "250ms"

Maker = Callable[[Path, list[Path]], None]

RESULTS = ("passed", "failed", "impossible")
MARKS = {"passed": "✓", "failed": "✗", "impossible": "—"}


@dataclass(frozen=True)
class Client:
    """A client, the environment that it lives in and the script that drives it."""

    name: str
    version: str
    # Stem of the pinned requirements `environments/requirements-STEM.txt`; or `npm`; or `cargo` for a program of ours.
    environment: str
    # Script in `clients/`, or the program.
    script: str
    # Words after the script.
    args: tuple[str, ...] = ()
    # How the chain shows a NetUid to it: as what it holds, or as a type of its own like the public network.
    netuid_types: tuple[str, ...] = ("u16", "newtype")

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}"

    @property
    def slug(self) -> str:
        """A file name."""
        return f"{self.name}-{self.version}".replace("/", "-").replace("@", "").replace(" ", "-")


# Not a client: bytes and metadata of a real chain, for which bittensor's codec is the tool.
RECORDED = "recorded data"

CLIENTS = (
    Client("bittensor", "10.5.0", "bittensor-10", "bittensor_10.py"),
    Client("bittensor", "11.3.0", "bittensor-11", "bittensor_11.py"),
    Client("btcli", "11.3.0", "bittensor-11", "btcli.py"),
    Client("substrate-interface", "1.8.1", "substrate-interface", "substrate.py", args=("py",)),
    Client("async-substrate-interface", "1.1.1", "asi-1", "substrate.py", args=("asi",)),
    Client("async-substrate-interface", "2.2.1", "asi-2", "substrate.py", args=("asi",)),
    Client("@polkadot/api", "16.5.6", "npm", "polkadot.mjs"),
    Client("subxt", "0.51.1", "cargo", "conformance-subxt"),
    Client(RECORDED, "461", "bittensor-11", "recorded.py", netuid_types=("newtype",)),
)


@dataclass
class Outcome:
    """How one operation of a client ended."""

    client: str
    version: str
    netuid_type: str
    operation: str
    # `passed`, `failed` or `impossible`: no chain of this spec can serve it.
    result: str
    # Why it failed or is impossible.
    why: str
    ms: int


@dataclass
class Processes:
    """Every process that was started, so that none outlives the run, however it ends."""

    running: set[subprocess.Popen[str]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closed: bool = False

    def add(self, process: subprocess.Popen[str]) -> None:
        """Remembers a process; ends it at once when the run is over."""
        with self.lock:
            self.running.add(process)
            closed = self.closed
        if closed:
            self.stop(process)
            raise RunError("the run was interrupted")

    def stop(self, process: subprocess.Popen[str]) -> None:
        """Ends a process and whatever it started."""
        for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
                break
        with self.lock:
            self.running.discard(process)

    def stop_all(self) -> None:
        """Ends every process, and those that are still to come."""
        with self.lock:
            self.closed = True
            running = list(self.running)
        for process in running:
            self.stop(process)


processes = Processes()


class RunError(Exception):
    """What keeps a client from being run."""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Runs real clients against the development chain.")
    parser.add_argument("--only", metavar="TEXT", help="run only the clients whose name and version contain this text")
    parser.add_argument("--table", action="store_true", help="print the table of the last report as Markdown and end")
    parser.add_argument("--readme", action="store_true", help="write the table of the last report into README and end")
    parser.add_argument("--python", metavar="STEM", help="print the Python of an environment and end")
    args = parser.parse_args()
    if args.python:
        return print_python(args.python)
    if args.table or args.readme:
        if not REPORT.exists():
            print(f"no report at `{REPORT}`: run `make conformance`")
            return 1
        text = table(json.loads(REPORT.read_text()))
        if args.readme:
            README.write_text(with_table(README.read_text(), text))
        else:
            print(text)
        return 0
    if not os.access(DEVCHAIN, os.X_OK):
        print(f"no chain at `{DEVCHAIN}`: run `make build`, or name the program in MYCELIUM_DEVCHAIN")
        return 1
    chosen = [client for client in CLIENTS if not args.only or args.only in client.title]
    if not chosen:
        print(f"no client is called `{args.only}`: there are {', '.join(client.title for client in CLIENTS)}")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with ThreadPoolExecutor(CLIENTS_AT_ONCE) as pool:
        try:
            runs = [(client, netuid_type) for client in chosen for netuid_type in client.netuid_types]
            outcomes = [outcome for of_run in pool.map(run_client, *zip(*runs, strict=True)) for outcome in of_run]
        except BaseException:
            # Before the pool waits for its threads, which wait for these.
            pool.shutdown(wait=False, cancel_futures=True)
            processes.stop_all()
            raise
    write_report(outcomes, whole=len(chosen) == len(CLIENTS))
    for outcome in outcomes:
        if outcome.result == "failed":
            title = f"{outcome.client} {outcome.version} ({outcome.netuid_type})"
            print(f"FAILED {title}: {outcome.operation}: {outcome.why}")
    counts = {result: sum(outcome.result == result for outcome in outcomes) for result in RESULTS}
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['impossible']} not possible")
    return 1 if counts["failed"] else 0


def print_python(stem: str) -> int:
    """Prints the Python of an environment, for benches that time the same packages."""
    client = next((client for client in CLIENTS if client.environment == stem), None)
    if client is None or stem in ("cargo", "npm"):
        print(f"no environment is called `{stem}`", file=sys.stderr)
        return 1
    print(environment(client) / "bin" / "python")
    return 0


# ---- environments ------------------------------------------------------------------------------------


def environment(client: Client) -> Path:
    """The folder of a client's environment, made if it is not there."""
    if client.environment == "cargo":
        # `make build` has made it beside the chain.
        return DEVCHAIN.parent
    if client.environment == "npm":
        sources = [HERE / "environments" / name for name in ("package.json", "package-lock.json", ".npmrc")]
        return made("npm", sources, node_version(), make_npm)
    requirements = HERE / "environments" / f"requirements-{client.environment}.txt"
    return made(client.environment, [requirements], f"{interpreter()} {platform.machine()}", make_venv)


@cache
def interpreter() -> str:
    """Path of a Python for which the pinned packages have wheels: this one, or another on the path."""
    if sys.version_info[:2] in PYTHONS:
        return str(Path(sys.executable).resolve())
    for version in PYTHONS:
        found = shutil.which(f"python{version[0]}.{version[1]}")
        if found:
            return str(Path(found).resolve())
    wanted = ", ".join(f"{major}.{minor}" for major, minor in PYTHONS)
    raise RunError(f"this is python {platform.python_version()}, the packages need one of {wanted}: install one")


def made(name: str, sources: list[Path], tool: str, make: Maker) -> Path:
    """A folder made of sources by a tool: made once, and again when either changes."""
    digest = hashlib.sha256(tool.encode())
    for source in sources:
        digest.update(source.read_bytes())
    folder = CACHE / f"{name}-{digest.hexdigest()[:12]}"
    ready = folder / ".ready"
    CACHE.mkdir(parents=True, exist_ok=True)
    # Two runs at a time must not make the same folder.
    with (CACHE / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder, sources)
            ready.touch()
    return folder


def make_venv(folder: Path, sources: list[Path]) -> None:
    """A virtual environment with exactly the pinned packages."""
    command([interpreter(), "-m", "venv", str(folder)], "make a virtual environment")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    # Without their dependencies: what is not pinned must not come in. `check` then tells what is missing.
    command([*pip, "install", "--no-deps", "-r", str(sources[0])], f"install {sources[0].name}")
    command([*pip, "check"], f"complete {sources[0].name}")


def make_npm(folder: Path, sources: list[Path]) -> None:
    """Packages of the lock file."""
    for source in sources:
        shutil.copy(source, folder / source.name)
    flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel", "error"]
    command(["npm", "ci", "--prefix", str(folder), *flags], "install package-lock.json")


def make_sdist(folder: Path, sources: list[Path]) -> None:
    """The source distribution with the recorded data of a real chain."""
    # A virtual environment, because the system's Python need not have pip.
    venv = made("bittensor-11", [sources[1]], f"{interpreter()} {platform.machine()}", make_venv)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    flags = ["--no-deps", "--no-binary", ":all:", "--require-hashes", "--dest", str(folder)]
    command([*pip, "download", *flags, "-r", str(sources[0])], f"download {sources[0].name}")
    (archive,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(archive, folder)


def sdist() -> Path:
    """The folder of the unpacked source distribution."""
    sources = [HERE / "environments" / f"requirements-{name}.txt" for name in ("sdist", "bittensor-11")]
    (folder,) = (path for path in made("sdist", sources, "1", make_sdist).iterdir() if path.is_dir())
    return folder


def node_version() -> str:
    """Version of node, which native packages depend on."""
    if not shutil.which("node") or not shutil.which("npm"):
        raise RunError("node or npm is not installed: install node 18 or newer")
    return subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S607


def command(words: list[str], purpose: str) -> None:
    """Runs a command that makes an environment."""
    try:
        done = subprocess.run(  # noqa: S603
            words, capture_output=True, text=True, timeout=ENVIRONMENT_TIMEOUT_S, check=False, cwd=CACHE
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"cannot {purpose}: not done within {ENVIRONMENT_TIMEOUT_S} s") from None
    if done.returncode:
        raise RunError(f"cannot {purpose}: {' '.join((done.stdout + done.stderr).split())[-600:]}")


# ---- chain and client --------------------------------------------------------------------------------


def logs() -> Path:
    """Where the output of chains and clients goes."""
    folder = REPORT.parent / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def chain(name: str, genesis: Path, netuid_type: str) -> Iterator[str]:
    """A chain on a free port; its endpoint."""
    log = logs() / f"{name}.chain.log"
    words = [str(DEVCHAIN), "--listen", "127.0.0.1:0", "--block-time", BLOCK_TIME, "--netuid-type", netuid_type]
    with log.open("w") as out:
        process = subprocess.Popen(  # noqa: S603
            [*words, "--genesis", str(genesis)], stdout=out, stderr=out, text=True, start_new_session=True
        )
    processes.add(process)
    try:
        deadline = time.monotonic() + CHAIN_START_TIMEOUT_S
        while True:
            started = [word for word in log.read_text().split() if word.startswith("ws://")]
            if started:
                break
            if process.poll() is not None or time.monotonic() > deadline:
                said = " ".join(log.read_text().split())[-400:] or f"it said nothing and ended with {process.poll()}"
                raise RunError(f"the chain did not start: {said}")
            time.sleep(0.02)
        yield started[0]
        if process.poll() is not None:
            raise RunError(f"the chain ended with {process.returncode}: see {log}")
    finally:
        processes.stop(process)


def run_client(client: Client, netuid_type: str) -> list[Outcome]:
    """Runs a client on a chain of its own; how each of its operations ended."""
    started = time.monotonic()
    name = f"{client.slug}-{netuid_type}"
    try:
        folder = environment(client)
        words = words_of(client, folder)
        told = {"CONFORMANCE_NETUID_TYPE": netuid_type, "CONFORMANCE_GENESIS": str(HERE / "genesis.json")}
        if client.name == RECORDED:
            told["CONFORMANCE_SDIST"] = str(sdist())
        with (
            tempfile.TemporaryDirectory(prefix="conformance-") as home,
            chain(name, HERE / "genesis.json", netuid_type) as endpoint,
        ):
            environ = settings(words, Path(home), {**told, "CONFORMANCE_URL": endpoint})
            lines, ended = drive(name, words, environ)
    except RunError as error:
        lines, ended = [], str(error)
    outcomes = judge(client, netuid_type, lines, ended)
    bad = sum(outcome.result == "failed" for outcome in outcomes)
    seconds = time.monotonic() - started
    print(f"{client.title} ({netuid_type}): {len(outcomes)} operations, {bad} failed, {seconds:.0f} s", flush=True)
    return outcomes


def words_of(client: Client, folder: Path) -> list[str]:
    """The command that runs a client's script."""
    if client.environment == "cargo":
        program = folder / client.script
        if not os.access(program, os.X_OK):
            raise RunError(f"no program at `{program}`: run `make build`")
        return [str(program), *client.args]
    script = HERE / "clients" / client.script
    if client.environment == "npm":
        return ["node", str(script), str(folder), *client.args]
    return [str(folder / "bin" / "python"), "-B", str(script), *client.args]


def settings(words: list[str], home: Path, told: dict[str, str]) -> dict[str, str]:
    """The environment of a client's process."""
    # Nothing of the caller's settings, a home of its own, and proxies that lead nowhere: a client that wants to
    # call its maker's servers cannot.
    nowhere = "http://127.0.0.1:9"
    path = os.environ.get("PATH", "")
    return {
        "PATH": f"{Path(words[0]).parent}:{path}" if "/" in words[0] else path,
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
        "NO_PROXY": "127.0.0.1,localhost",
        **told,
    }


def drive(name: str, words: list[str], environ: dict[str, str]) -> tuple[list[dict[str, object]], str]:
    """Runs a client's script; the lines it printed, and how it ended if not well."""
    with (logs() / f"{name}.log").open("w") as err:
        process = subprocess.Popen(  # noqa: S603
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            env=environ,
            cwd=environ["HOME"],
            start_new_session=True,
        )
    processes.add(process)
    ended = ""
    try:
        out, _ = process.communicate(timeout=CLIENT_TIMEOUT_S)
        if process.returncode:
            ended = f"the client ended with {process.returncode}: see {err.name}"
    except subprocess.TimeoutExpired:
        processes.stop(process)
        out, _ = process.communicate()
        ended = f"the client did not end within {CLIENT_TIMEOUT_S} s"
    finally:
        processes.stop(process)
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")], ended


def judge(client: Client, netuid_type: str, lines: list[dict[str, object]], ended: str) -> list[Outcome]:
    """Outcomes of a client from its lines. What it planned and never told of has failed."""
    plan: list[str] = next((list(line["plan"]) for line in lines if isinstance(line.get("plan"), list)), [])  # type: ignore[call-overload]
    told = {str(line["operation"]): line for line in lines if "operation" in line}
    outcomes = []
    for name in plan:
        line = told.get(name, {"result": "failed", "why": ended or "the client never told of it", "ms": 0})
        result, why, ms = str(line["result"]), str(line["why"]), int(str(line["ms"]))
        outcomes.append(Outcome(client.name, client.version, netuid_type, name, result, why, ms))
    if not plan or ended:
        why = ended or "it told nothing"
        outcomes.append(Outcome(client.name, client.version, netuid_type, "run to the end", "failed", why, 0))
    return outcomes


# ---- report ------------------------------------------------------------------------------------------


def write_report(outcomes: list[Outcome], *, whole: bool) -> None:
    """Writes the report; a run of some clients replaces their part of it."""
    kept: list[dict[str, object]] = []
    if not whole and REPORT.exists():
        ran = {(outcome.client, outcome.version) for outcome in outcomes}
        before = json.loads(REPORT.read_text())["operations"]
        known = {(client.name, client.version) for client in CLIENTS} - ran
        kept = [line for line in before if (line["client"], line["version"]) in known]
    order = [(client.name, client.version) for client in CLIENTS]
    operations = sorted(
        kept + [asdict(outcome) for outcome in outcomes],
        key=lambda line: order.index((line["client"], line["version"])),
    )
    totals = {result: sum(line["result"] == result for line in operations) for result in RESULTS}
    text = json.dumps({"totals": totals, "operations": operations}, indent=1)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    partial = REPORT.with_suffix(".partial")
    partial.write_text(text + "\n")
    partial.replace(REPORT)


def table(report: dict[str, list[dict[str, str]]]) -> str:
    """The report as Markdown: a table of operations by clients, one of the comparison with recorded data, and notes."""
    notes: list[str] = []
    compared = [line for line in report["operations"] if line["client"] == RECORDED]
    clients = [line for line in report["operations"] if line["client"] != RECORDED]
    out = by_client(clients, notes)
    if compared:
        out += ["", f"| {RECORDED} {compared[0]['version']} | |", "|---|:-:|"]
        out += [f"| {line['operation']} | {cell([line], notes)} |" for line in compared]
    if notes:
        out += ["", "✓ passed, ✗ failed, — cannot be served:", ""]
        out += [f"{number}. {note}" for number, note in enumerate(notes, 1)]
    return "\n".join(out)


def with_table(readme: str, text: str) -> str:
    """README.md with another table between its marks."""
    before, begin, rest = readme.partition(README_MARKS[0])
    _, end, after = rest.partition(README_MARKS[1])
    if not (begin and end):
        raise SystemExit(f"README.md has no lines `{README_MARKS[0].strip()}` and `{README_MARKS[1].strip()}`")
    return f"{before}{begin}{text}\n{end}{after}"


def by_client(lines: list[dict[str, str]], notes: list[str]) -> list[str]:
    """Rows of operations, what most clients do first, with a column for each client."""
    clients = list(dict.fromkeys(f"{line['client']} {line['version']}" for line in lines))
    rows: dict[str, dict[str, list[dict[str, str]]]] = {}
    for line in lines:
        columns = rows.setdefault(line["operation"], {client: [] for client in clients})
        columns[f"{line['client']} {line['version']}"].append(line)
    out = [f"| | {' | '.join(clients)} |", f"|---|{':-:|' * len(clients)}"]
    for name in sorted(rows, key=lambda name: -sum(map(bool, rows[name].values()))):
        cells = (cell(rows[name][client], notes) for client in clients)
        out.append(f"| {name} | {' | '.join(cells)} |")
    return out


def cell(lines: list[dict[str, str]], notes: list[str]) -> str:
    """The mark of one operation of a client, and the numbers of the notes that say why it did not pass."""
    numbers = []
    for line in lines:
        if line["result"] == "passed":
            continue
        note = line["why"] if line["result"] == "impossible" else f"{line['client']} {line['version']}: {line['why']}"
        if any(other["result"] == "passed" for other in lines):
            note += f" (with `--netuid-type {line['netuid_type']}`)"
        if note not in notes:
            notes.append(note)
        numbers.append(str(notes.index(note) + 1))
    results = [line["result"] for line in lines]
    mark = next((MARKS[result] for result in ("failed", "passed", "impossible") if result in results), "")
    return f"{mark} {', '.join(dict.fromkeys(numbers))}".strip()


if __name__ == "__main__":
    sys.exit(main())
