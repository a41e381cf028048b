"""Recorded data of a real chain of spec 461, out of bittensor 11.3.0, against the metadata of this chain.

`golden.json` has storage keys, calls, signature payloads, extrinsics, events and answers of runtime APIs as bytes, and
what they mean; `corpus.json` has samples of every type. Both come from a chain, not from the SDK. The SDK's codec,
given the metadata of this chain, must make the same of them. Beside that the two metadata are compared type by type.
Every difference needs a line with a reason in `shapes.json`, and a line that no difference needs is an error.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from bittensor._transport.codec import RuntimeCodec, strip_option_opaque_metadata
from bittensor._transport.storage import decode_map_pairs, decode_storage_value

from operations import FailedError, equal, impossible, operation, run_all, that, url

FIXTURES = Path(os.environ["CONFORMANCE_SDIST"]) / "tests" / "fixtures"
ALLOWED = Path(__file__).parent.parent / "shapes.json"

# Differences that an operation names before it stops; all of them are in the log.
SHOWN = 6


def rpc(method: str, *params: object) -> Any:
    """One JSON-RPC call over HTTP."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(url().replace("ws:", "http:"), body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        return json.load(answer)["result"]


def codec(metadata_hex: str) -> RuntimeCodec:
    """The SDK's codec for a metadata blob of version 15."""
    inner = strip_option_opaque_metadata(bytes.fromhex(metadata_hex[2:]))
    version = {"spec_version": 461, "transaction_version": 1, "spec_name": "node-subtensor", "ss58_format": 42}
    return RuntimeCodec(inner, **version)


def jsonable(value: Any) -> Any:
    """A decoded value as the recording writes it."""
    if isinstance(value, bytes | bytearray):
        return "0x" + bytes(value).hex()
    if isinstance(value, list | tuple):
        return [jsonable(part) for part in value]
    if isinstance(value, dict):
        return {str(name): jsonable(part) for name, part in value.items()}
    return value


class Registry:
    """A codec's metadata as plain values."""

    def __init__(self, made: RuntimeCodec) -> None:
        self.codec = made
        self.types: dict[int, dict[str, Any]] = {entry["id"]: entry["type"] for entry in made.registry_types()}
        self.by_path = {"::".join(ty.get("path", [])): number for number, ty in self.types.items() if ty.get("path")}
        self.pallets = {pallet.name: pallet for pallet in made.metadata_ir().pallets}

    def outer(self, name: str) -> dict[str, dict[str, Any]]:
        """Variants of an outer enum by pallet."""
        ty = self.types[self.by_path[f"node_subtensor_runtime::{name}"]]
        return {variant["name"]: variant for variant in variants(ty)}

    def inner(self, pallet: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Variants of a pallet's part of an outer enum."""
        ty = self.types[pallet["fields"][0]["type"]]
        return {variant["name"]: variant for variant in variants(ty)}


def variants(ty: dict[str, Any]) -> list[dict[str, Any]]:
    """Variants of an enum."""
    return list(ty["def"].get("variant", {}).get("variants", []))


def kind(ty: dict[str, Any]) -> str:
    """What sort of type it is."""
    return str(next(iter(ty["def"])))


def number(type_string: str) -> int:
    """Id of a type that is written as `scale_info::7`."""
    return int(type_string.rpartition("::")[2])


@dataclass
class State:
    """What the operations share."""

    golden: dict[str, Any] = field(default_factory=lambda: json.loads((FIXTURES / "golden.json").read_text()))
    corpus: dict[str, Any] = field(
        default_factory=lambda: json.loads((FIXTURES / "shape_corpus" / "corpus.json").read_text())
    )
    # Reasons, each with the differences that it explains as patterns of shell.
    allowed: list[dict[str, Any]] = field(default_factory=lambda: json.loads(ALLOWED.read_text()))
    used: set[str] = field(default_factory=set)
    # Types of the recording and of this chain that stand in the same place.
    pairs: set[tuple[int, int]] = field(default_factory=set)

    @cached_property
    def theirs(self) -> Registry:
        """The recorded metadata."""
        return Registry(codec(self.golden["metadata"]["v15_hex"]))

    @cached_property
    def ours(self) -> Registry:
        """The metadata of this chain."""
        return Registry(codec(rpc("state_call", "Metadata_metadata_at_version", "0x0f000000")))

    def judge(self, differences: list[str]) -> None:
        """Fails when a difference has no reason in the list."""
        unexplained = []
        for difference in dict.fromkeys(differences):
            patterns = {pattern for group in self.allowed for pattern in group["differences"]}
            matching = {pattern for pattern in patterns if fnmatchcase(difference, pattern)}
            self.used |= matching
            if not matching:
                unexplained.append(difference)
        print(f"{len(set(differences))} differences, {len(unexplained)} without a reason", file=sys.stderr)
        for difference in unexplained:
            print(f"  {difference}", file=sys.stderr)
        if unexplained:
            more = f" and {len(unexplained) - SHOWN} more" if len(unexplained) > SHOWN else ""
            raise FailedError("; ".join(unexplained[:SHOWN]) + more)

    def compare(self, place: str, a: int, b: int) -> list[str]:
        """Differences of two types and of everything they are made of."""
        comparison = Comparison(self.theirs, self.ours)
        found = comparison.types(place, a, b)
        self.pairs |= comparison.seen
        return found


@dataclass
class Comparison:
    """Two types and everything they are made of, the recorded one first. Each pair is looked at once."""

    theirs: Registry
    ours: Registry
    # Pairs that were looked at.
    seen: set[tuple[int, int]] = field(default_factory=set)
    found: list[str] = field(default_factory=list)

    def types(self, place: str, a: int, b: int) -> list[str]:
        """Differences of two types."""
        if (a, b) in self.seen or is_outer(self.theirs.types[a]):
            return self.found
        self.seen.add((a, b))
        x, y = self.theirs.types[a], self.ours.types[b]
        path_x, path_y = "::".join(x.get("path", [])), "::".join(y.get("path", []))
        dx, dy = x["def"][kind(x)], y["def"][kind(y)]
        if kind(x) == "composite" and kind(y) == "primitive" and len(dx.get("fields", [])) == 1:
            # A newtype has the encoding of what is in it.
            self.found.append(f"type {path_x}: shown as {dy}")
            return self.types(place, dx["fields"][0]["type"], b)
        if path_x and path_y and path_x != path_y:
            self.found.append(f"type {path_x}: shown as {path_y}")
        if kind(x) != kind(y):
            self.found.append(f"{place}: {path_x or kind(x)} is {path_y or kind(y)}")
        elif kind(x) == "composite":
            self.fields(place, dx.get("fields", []), dy.get("fields", []))
        elif kind(x) == "variant":
            self.variants(place, variants(x), variants(y))
        elif kind(x) == "tuple":
            self.tuples(place, dx, dy)
        elif kind(x) == "primitive":
            self.same(place, dx, dy)
        else:
            self.same(f"{place} length", dx.get("len"), dy.get("len"))
            if "type" in dx:
                self.types(f"{place}[]", dx["type"], dy["type"])
        return self.found

    def same(self, place: str, theirs: object, ours: object) -> None:
        """A difference unless both are the same."""
        if theirs != ours:
            self.found.append(f"{place}: {theirs} is {ours}")

    def tuples(self, place: str, theirs: list[int], ours: list[int]) -> None:
        """Differences of tuples."""
        self.same(f"{place} width", len(theirs), len(ours))
        for i, (a, b) in enumerate(zip(theirs, ours, strict=False)):
            self.types(f"{place}.{i}", a, b)

    def variants(self, place: str, theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> None:
        """Differences of enums, variant by variant."""
        left = {variant["name"]: variant for variant in ours}
        for variant in theirs:
            where = f"{place}.{variant['name']}"
            other = left.pop(variant["name"], None)
            if other is None:
                self.found.append(f"{where}: missing")
                continue
            self.same(f"{where} index", variant["index"], other["index"])
            self.fields(where, variant.get("fields", []), other.get("fields", []))
        self.found += [f"{place}.{name}: new" for name in left]

    def fields(self, place: str, theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> None:
        """Differences of the fields of a struct or variant."""
        names = [[part.get("name") or str(i) for i, part in enumerate(side)] for side in (theirs, ours)]
        if names[0] != names[1]:
            missing = [name for name in names[0] if name not in names[1]]
            new = [name for name in names[1] if name not in names[0]]
            order = "" if missing or new else ", in another order"
            self.found.append(f"{place}: fields missing {missing}, new {new}{order}")
        by_name = dict(zip(names[1], ours, strict=True))
        for name, part in zip(names[0], theirs, strict=True):
            if name in by_name:
                self.types(f"{place}.{name}", part["type"], by_name[name]["type"])


def is_outer(ty: dict[str, Any]) -> bool:
    """Whether it is an enum over all pallets, which is compared by itself."""
    path = ty.get("path", [])
    outer = ("RuntimeCall", "RuntimeEvent", "RuntimeError", "OriginCaller", "RuntimeHoldReason", "RuntimeFreezeReason")
    return len(path) == 2 and path[0] == "node_subtensor_runtime" and path[1] in outer


# ---- bytes ---------------------------------------------------------------------------------------------


@operation("metadata of spec 461")
def _(s: State) -> None:
    version = rpc("state_getRuntimeVersion")
    got = {name: version[name] for name in ("specName", "specVersion", "transactionVersion")}
    equal("version", got, {"specName": "node-subtensor", "specVersion": 461, "transactionVersion": 1})
    theirs, ours = s.theirs.codec, s.ours.codec
    equal("extensions", ours.signed_extension_identifiers(), theirs.signed_extension_identifiers())
    equal("extrinsic version", ours.extrinsic_version, theirs.extrinsic_version)
    indices = {name: pallet.index for name, pallet in s.theirs.pallets.items() if name in s.ours.pallets}
    equal("pallets", {name: pallet.index for name, pallet in s.ours.pallets.items()}, indices)


@operation("storage keys")
def _(s: State) -> None:
    compared = 0
    for case in s.golden["storage_keys"]:
        pallet, item = case["pallet"], case["storage_function"]
        if item not in {entry.name for entry in getattr(s.ours.pallets.get(pallet), "storage", [])}:
            s.judge([f"storage {pallet}.{item}: missing"])
            continue
        entry = s.ours.codec.storage_entry(pallet, item)
        made = "0x" + s.ours.codec.storage_key(entry, list(case["params"])).hex()
        equal(f"{pallet}.{item}{case['params']}", made, case["key_hex"])
        compared += 1
    that(compared >= 9, f"only {compared} keys were compared")


@operation("calls")
def _(s: State) -> None:
    alice, bob, charlie = (entry["address"] for entry in s.golden["ss58"][:3])
    made = s.ours.codec.compose_call

    def transfer(dest: str, value: int) -> Any:
        return made("Balances", "transfer_keep_alive", {"dest": dest, "value": value})

    nested = {
        "Sudo": lambda: {"call": made("System", "remark", {"remark": "0xdeadbeef"})},
        "Utility": lambda: {"calls": [transfer(bob, 1), transfer(charlie, 2)]},
        "Proxy": lambda: {"real": alice, "force_proxy_type": "Transfer", "call": transfer(bob, 1)},
    }
    for case in s.golden["calls"]:
        params = nested.get(case["module"], lambda case=case: case["params"])()
        call = made(case["module"], case["function"], params)
        got = "0x" + s.ours.codec.call_data(call).hex()
        equal(f"{case['module']}.{case['function']}", got, case["data_hex"])
        that(s.ours.codec.decode_call(bytes.fromhex(got[2:])) is not None, "the call does not decode")


def recorded_transfer(s: State) -> Any:
    """The transfer that the recorded payloads and extrinsics are about."""
    words = {"dest": s.golden["ss58"][1]["address"], "value": 12345}
    return s.ours.codec.compose_call("Balances", "transfer_keep_alive", words)


@operation("signature payloads")
def _(s: State) -> None:
    genesis = s.golden["network"]["genesis_hash"]
    for case in s.golden["signature_payloads"]:
        era = case["era"] if isinstance(case["era"], str) else dict(case["era"])
        payload = s.ours.codec.signature_payload(
            recorded_transfer(s),
            era=era,
            nonce=case["nonce"],
            tip=case["tip"],
            tip_asset_id=None,
            genesis_hash=genesis,
            era_block_hash=case.get("era_birth_block_hash", genesis),
        )
        equal(f"payload of nonce {case['nonce']}", "0x" + payload.hex(), case["payload_hex"])


@operation("extrinsics")
def _(s: State) -> None:
    for case in s.golden["extrinsics"]:
        data, digest = s.ours.codec.encode_signed_extrinsic(
            recorded_transfer(s),
            public_key=bytes.fromhex(case["public_key_hex"][2:]),
            signature=bytes.fromhex(case["signature_hex"][2:]),
            signature_version=case["signature_version"],
            era=case["era"] if isinstance(case["era"], str) else dict(case["era"]),
            nonce=case["nonce"],
            tip=case["tip"],
            tip_asset_id=None,
        )
        equal("extrinsic", ("0x" + data.hex(), digest), (case["extrinsic_hex"], case["extrinsic_hash"]))


@operation("extrinsics of a block")
def _(s: State) -> None:
    raw = s.golden["block"]["raw"]["block"]["extrinsics"]
    calls = s.ours.outer("RuntimeCall")
    compared = 0
    for data, want in zip(raw, s.golden["block"]["decoded_extrinsics"], strict=True):
        module = want["call"]["call_module"]
        if module not in calls:
            s.judge([f"calls of {module}: missing"])
            continue
        equal(module, s.ours.codec.decode_extrinsic(data), want)
        compared += 1
    that(compared >= 2, f"only {compared} extrinsics were compared")


@impossible(
    "events of a block",
    why="the released pallet-balances numbers its events otherwise than the fork in spec 461; clients go by name",
    error="unexpected end of SCALE data|events:",
)
def _(s: State) -> None:
    entry = s.ours.codec.storage_entry("System", "Events")
    raw = bytes.fromhex(s.golden["events"]["raw_hex"][2:])
    equal("events", s.ours.codec.decode(entry.value_type, raw), s.golden["events"]["decoded"])


@operation("storage values")
def _(s: State) -> None:
    for case in s.golden["storage_values"]:
        entry = s.ours.codec.storage_entry(case["pallet"], case["storage_function"])
        raw = None if case["raw_hex"] is None else bytes.fromhex(case["raw_hex"][2:])
        got = decode_storage_value(s.ours.codec, entry, raw)
        equal(f"{case['pallet']}.{case['storage_function']}{case['params']}", jsonable(got), case["decoded"])


@operation("storage maps")
def _(s: State) -> None:
    for case in s.golden["query_maps"]:
        entry = s.ours.codec.storage_entry(case["pallet"], case["storage_function"])
        changes = [(name, value) for name, value in case["raw_changes"]]
        pairs = decode_map_pairs(s.ours.codec, entry, list(case["params"]), changes) if changes else []
        got = [[jsonable(name), jsonable(value)] for name, value in pairs]
        equal(f"{case['pallet']}.{case['storage_function']}", got[: len(case["pairs"])], case["pairs"])


@operation("runtime calls")
def _(s: State) -> None:
    for case in s.golden["runtime_calls"]:
        place = f"{case['api']}.{case['method']}"
        method = s.ours.codec.runtime_api_map[case["api"]][case["method"]]
        parts = zip(method["inputs"], case["params"], strict=True)
        made = b"".join(s.ours.codec.encode(type_string, value) for (_name, type_string), value in parts)
        equal(f"{place} arguments", made.hex(), case["encoded_params_hex"].removeprefix("0x"))
        got = s.ours.codec.decode(method["output"], bytes.fromhex(case["raw_hex"][2:]))
        equal(f"{place} answer", jsonable(got), case["decoded"])


# ---- shapes --------------------------------------------------------------------------------------------


@operation("shapes of storage")
def _(s: State) -> None:
    found: list[str] = []
    for name, pallet in s.ours.pallets.items():
        theirs = {entry.name for entry in s.theirs.pallets[name].storage}
        ours = {entry.name for entry in pallet.storage}
        found += [f"storage {name}.{item}: missing" for item in sorted(theirs - ours)]
        found += [f"storage {name}.{item}: new" for item in sorted(ours - theirs)]
        for item in sorted(ours & theirs):
            place = f"storage {name}.{item}"
            a, b = s.theirs.codec.storage_entry(name, item), s.ours.codec.storage_entry(name, item)
            for what in ("prefix", "param_hashers", "modifier"):
                if getattr(a, what) != getattr(b, what):
                    found.append(f"{place}: {what} {getattr(a, what)} is {getattr(b, what)}")
            if a.default_bytes != b.default_bytes:
                found.append(f"{place}: default 0x{a.default_bytes.hex()} is 0x{b.default_bytes.hex()}")
            for i, (left, right) in enumerate(zip(a.param_types, b.param_types, strict=False)):
                found += s.compare(f"{place} key {i}", number(left), number(right))
            found += s.compare(f"{place} value", number(a.value_type), number(b.value_type))
    s.judge(found)


def compare_outer(s: State, outer: str, word: str) -> None:
    """Compares calls, events or errors of the pallets that this chain has."""
    found: list[str] = []
    theirs, ours = s.theirs.outer(outer), s.ours.outer(outer)
    found += [f"calls of {name}: missing" for name in theirs if name not in ours and word == "call"]
    for name, pallet in ours.items():
        equal(f"index of {name}", pallet["index"], theirs[name]["index"])
        left, right = s.theirs.inner(theirs[name]), s.ours.inner(pallet)
        for item, variant in left.items():
            place = f"{word} {name}.{item}"
            if item not in right:
                found.append(f"{place}: missing")
                continue
            if variant["index"] != right[item]["index"]:
                found.append(f"{place}: index {variant['index']} is {right[item]['index']}")
            comparison = Comparison(s.theirs, s.ours)
            comparison.fields(place, variant.get("fields", []), right[item].get("fields", []))
            s.pairs |= comparison.seen
            found += comparison.found
        found += [f"{word} {name}.{item}: new" for item in right if item not in left]
    s.judge(found)


@operation("shapes of calls")
def _(s: State) -> None:
    compare_outer(s, "RuntimeCall", "call")


@operation("shapes of events")
def _(s: State) -> None:
    compare_outer(s, "RuntimeEvent", "event")


@operation("shapes of errors")
def _(s: State) -> None:
    compare_outer(s, "RuntimeError", "error")


@operation("shapes of runtime APIs")
def _(s: State) -> None:
    found: list[str] = []
    theirs, ours = s.theirs.codec.runtime_api_map, s.ours.codec.runtime_api_map
    for api, methods in theirs.items():
        if api not in ours:
            found.append(f"api {api}: missing")
            continue
        for name, method in methods.items():
            place = f"api {api}.{name}"
            if name not in ours[api]:
                found.append(f"{place}: missing")
                continue
            other = ours[api][name]
            names = [[parameter for parameter, _ in side["inputs"]] for side in (method, other)]
            if names[0] != names[1]:
                found.append(f"{place}: arguments {names[0]} are {names[1]}")
            for (parameter, a), (_, b) in zip(method["inputs"], other["inputs"], strict=False):
                found += s.compare(f"{place} {parameter}", number(a), number(b))
            found += s.compare(f"{place} answer", number(method["output"]), number(other["output"]))
    found += [f"api {api}: new" for api in ours if api not in theirs]
    found += [f"api {api}.{name}: new" for api in ours for name in ours[api] if name not in theirs.get(api, ours[api])]
    s.judge(found)


@operation("constants")
def _(s: State) -> None:
    found: list[str] = []
    for name, pallet in s.ours.pallets.items():
        theirs = set(s.theirs.pallets[name].constants)
        found += [f"constant {name}.{item}: missing" for item in sorted(theirs - set(pallet.constants))]
        found += [f"constant {name}.{item}: new" for item in sorted(set(pallet.constants) - theirs)]
        for item in sorted(theirs & set(pallet.constants)):
            a, b = s.theirs.codec.constant(name, item), s.ours.codec.constant(name, item)
            if a != b:
                found.append(f"constant {name}.{item}: {a} is {b}"[:300])
    s.judge(found)


@operation("samples of types")
def _(s: State) -> None:
    that(s.pairs, "no types were compared")
    samples = {entry["id"]: entry["samples"] for entry in s.corpus["types"]}
    same = [
        (a, b)
        for a, b in sorted(s.pairs)
        if a in samples and not Comparison(s.theirs, s.ours).types("", a, b) and not holds_outer(s, a)
    ]
    wanted = [(f"scale_info::{b}", sample, a) for a, b in same for sample in samples[a]]
    data = [bytes.fromhex(sample["scale_hex"][2:]) for _, sample, _ in wanted]
    decoded = s.ours.codec.batch_decode([type_string for type_string, _, _ in wanted], data)
    for (_, sample, a), got in zip(wanted, decoded, strict=True):
        equal(f"type {a} {s.theirs.types[a].get('path')}", jsonable(got), sample["decoded"])
    print(f"{len(wanted)} samples of {len(same)} types", file=sys.stderr)
    that(len(same) > 200, f"only {len(same)} types were compared")


def holds_outer(s: State, start: int) -> bool:
    """Whether a type has an enum over all pallets in it, of which this chain has a part only."""
    seen, todo = set(), [start]
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        ty = s.theirs.types[current]
        if is_outer(ty):
            return True
        inside = ty["def"][kind(ty)]
        if kind(ty) == "variant":
            todo += [part["type"] for variant in variants(ty) for part in variant.get("fields", [])]
        elif kind(ty) == "composite":
            todo += [part["type"] for part in inside.get("fields", [])]
        elif kind(ty) == "tuple":
            todo += inside
        elif kind(ty) != "primitive" and "type" in inside:
            todo.append(inside["type"])
    return False


@operation("allow-list of differences is current")
def _(s: State) -> None:
    unused = [pattern for group in s.allowed for pattern in group["differences"] if pattern not in s.used]
    equal("lines of shapes.json that no difference needs", unused, [])
    that(all(group["reason"] for group in s.allowed), "a group of shapes.json has no reason")


if __name__ == "__main__":
    run_all(State())
