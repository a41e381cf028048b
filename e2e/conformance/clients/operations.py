"""Operations: what a client script consists of and how it tells the runner about each.

A script declares its operations in the order in which they run and ends with `run_all`. The first line on standard
output names all of them, so that the runner can tell what a client that died never reached; then comes one line for
each as it ends. An operation that no chain of this spec can serve is run all the same, and must fail in the way that is
expected of it: the day it succeeds or fails otherwise, the list is wrong.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

# Whatever the SDKs print goes to standard error; only this module writes lines that the runner reads.
_out = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

# Longer than anything takes on a chain of 250 ms blocks, epochs included. Only what hangs takes as long.
PATIENCE_S = 40

LOOPBACK = ("127.0.0.1", "::1", "localhost")

S = TypeVar("S")
Body = Callable[[S], None]


class FailedError(AssertionError):
    """A value read back is not what the chain was told."""


class OutOfTime(BaseException):
    """An operation takes too long. No `Exception`, because SDKs catch those and try again."""


@dataclass(frozen=True)
class Operation:
    """One thing that a client does, with what is known of it."""

    name: str
    run: Callable[[Any], None]
    # Why no chain of this spec can serve it, and what the client then says (a regular expression).
    impossible: str = ""
    error: str = ""


_plan: list[Operation] = []
_refused: list[str] = []


def operation(name: str) -> Callable[[Body[S]], Body[S]]:
    """Declares an operation that must pass."""

    def declare(run: Body[S]) -> Body[S]:
        _plan.append(Operation(name, run))
        return run

    return declare


def impossible(name: str, *, why: str, error: str) -> Callable[[Body[S]], Body[S]]:
    """Declares an operation that no chain of this spec can serve: it must fail with `error`."""

    def declare(run: Body[S]) -> Body[S]:
        _plan.append(Operation(name, run, why, error))
        return run

    return declare


def equal(what: str, got: object, want: object) -> None:
    """Fails unless both are the same."""
    if got != want:
        raise FailedError(f"{what}: got {got!r}, want {want!r}")


def close(what: str, got: float, want: float, tolerance: float) -> None:
    """Fails unless both differ by the tolerance at most."""
    if not abs(got - want) <= tolerance:
        raise FailedError(f"{what}: got {got!r}, want {want!r} within {tolerance}")


def that(condition: object, what: str) -> None:
    """Fails unless the condition holds."""
    if not condition:
        raise FailedError(what)


def until(what: str, condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Waits until the condition holds, by asking again."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise FailedError(f"{what}: not within {seconds} s")
        time.sleep(0.1)


def url() -> str:
    """WebSocket endpoint of the chain."""
    return os.environ["CONFORMANCE_URL"]


def facts() -> dict[str, Any]:
    """The genesis file: what the chain was told before it started."""
    content: dict[str, Any] = json.loads(Path(os.environ["CONFORMANCE_GENESIS"]).read_text())
    return content


def rao(tao: str) -> int:
    """An amount of a genesis file in rao."""
    whole, _, part = tao.partition(".")
    return int(whole) * 10**9 + int(part.ljust(9, "0") or 0)


def _tell(line: dict[str, object]) -> None:
    _out.write(json.dumps(line) + "\n")
    _out.flush()


def _loopback_only(event: str, args: tuple[Any, ...]) -> None:
    """Refuses addresses beyond this machine, and remembers that one was asked for."""
    if event == "socket.connect":
        target = args[1]
    elif event == "socket.getaddrinfo":
        target = args[:1]
    else:
        return
    host = target[0] if isinstance(target, tuple) else None  # a unix socket is a path
    if isinstance(host, bytes):
        host = host.decode()
    if host is not None and host not in LOOPBACK:
        _refused.append(f"{event} {host}")
        raise PermissionError(f"{host} is not loopback")


def _reason(error: BaseException) -> str:
    """Type and text of an error with its causes, on one line."""
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None and len(parts) < 4:
        text = str(current) if isinstance(current, FailedError) else f"{type(current).__name__}: {current}"
        parts.append(" ".join(text.split()))
        current = current.__cause__ or current.__context__
    return " <- ".join(parts)[:600]


def _timeout(*_: object) -> None:
    raise OutOfTime(f"no answer within {PATIENCE_S} s")


def _run(op: Operation, state: object) -> dict[str, object]:
    started = time.monotonic()
    signal.signal(signal.SIGALRM, _timeout)
    # Again and again, should the client swallow the first.
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S, 1)
    error: BaseException | None = None
    try:
        op.run(state)
    except BaseException as raised:  # noqa: BLE001 - whatever a client raises is the result, a panic of its core included
        error = raised
        if not op.impossible:
            traceback.print_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    result, why = "passed", ""
    if op.impossible:
        result, why = "impossible", op.impossible
        if error is None:
            result, why = "failed", "it works, so it must no longer be listed as impossible"
        elif not re.search(op.error, _reason(error)):
            result, why = "failed", f"expected an error with /{op.error}/: {_reason(error)}"
    elif error is not None:
        result, why = "failed", _reason(error)
    return {"operation": op.name, "result": result, "why": why, "ms": round((time.monotonic() - started) * 1000)}


def run_all(state: object) -> None:
    """Runs every operation, one after the other, and ends the process."""
    loopback = "no address but loopback"
    names = [op.name for op in _plan] + [loopback]
    _tell({"plan": names})
    sys.addaudithook(_loopback_only)
    for op in _plan:
        print(f"---- {op.name}", file=sys.stderr, flush=True)
        _tell(_run(op, state))
    result = "failed" if _refused else "passed"
    _tell({"operation": loopback, "result": result, "why": "; ".join(_refused[:5]), "ms": 0})
    sys.stderr.flush()
    # Threads of a client (reconnecting sockets) must not keep the process alive.
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            print(f"still running: {thread.name}", file=sys.stderr, flush=True)
    os._exit(0)
