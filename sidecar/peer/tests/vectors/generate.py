"""Test vectors of the request schemes, made and checked by code that shares nothing with the crate.

    pip install -r requirements.txt
    python generate.py          # writes fiber.json: what a Fiber client sends
    python generate.py --check  # verifies mycelium.json: what the crate sends (written by UPDATE_GOLDEN=1 cargo test)

The check is one of the tests that `.ci/test` runs.

It follows the description of Fiber's protocol with the libraries Fiber uses: `substrateinterface.Keypair` signs,
`cryptography` wraps keys and makes tokens, `json.dumps` serialises.
"""

import base64
import hashlib
import json
import pathlib
import sys
import time

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from substrateinterface import Keypair

HERE = pathlib.Path(__file__).parent
SECOND = 1_764_000_000
VALIDATOR = Keypair.create_from_seed("0x" + "01" * 32, ss58_format=42)
MINER = Keypair.create_from_seed("0x" + "02" * 32, ss58_format=42)
OAEP = padding.OAEP(mgf=padding.MGF1(algorithm=hashes.SHA256()), algorithm=hashes.SHA256(), label=None)

PAYLOADS = [
    {"hi": "there"},
    {},
    {"prompt": "Grüße, 世界 🌍", "nested": {"list": [1, 2.5, None, True], "empty": ""}},
    {"big": "x" * 5000},
]


def sign(keypair, message, wrapped=False):
    if wrapped:
        message = f"<Bytes>{message}</Bytes>"
    return "0x" + keypair.sign(message).hex()


def plain():
    cases = []
    for number, payload in enumerate(PAYLOADS):
        nonce = f"{SECOND}000000{number:03d}_abcDEF123{number}"
        body = json.dumps(payload).encode()
        payload_hash = hashlib.sha256(body).hexdigest()
        message = f"{nonce}:{MINER.ss58_address}:{payload_hash}"
        for wrapped in (False, True):
            cases.append(case("POST", body, nonce, message, wrapped))
            nonce = nonce + "w"
            message = f"{nonce}:{MINER.ss58_address}:{payload_hash}"
    nonce = f"{SECOND}000000999_abcDEF1239"
    cases.append(case("GET", b"", nonce, f"{nonce}:{MINER.ss58_address}", False))
    return cases


def case(method, body, nonce, message, wrapped):
    return {
        "method": method,
        "body": base64.b64encode(body).decode(),
        "message": message,
        "wrapped": wrapped,
        "headers": [
            ["Content-Type", "application/json"],
            ["validator-hotkey", VALIDATOR.ss58_address],
            ["miner-hotkey", MINER.ss58_address],
            ["nonce", nonce],
            ["signature", sign(VALIDATOR, message, wrapped)],
        ],
    }


def encrypted():
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = private.public_key()
    cases = []
    for number, payload in enumerate(PAYLOADS):
        # Bytes whose base64 has `+` and `/`, among others.
        key = bytes([0xFB - number] * 32) if number == 0 else hashlib.sha256(bytes([number])).digest()
        uuid = hashlib.sha256(b"uuid" + bytes([number])).hexdigest()
        nonce = f"{SECOND}000001{number:03d}_abcDEF123{number}"
        payload = payload | {"nonce": f"{SECOND}000002{number:03d}_abcDEF123{number}"}
        content = json.dumps(payload)
        fernet = Fernet(base64.b64encode(key))
        message = f"{nonce}:{MINER.ss58_address}:{uuid}"
        cases.append({
            "symmetric_key": base64.b64encode(key).decode(),
            "symmetric_key_urlsafe": base64.urlsafe_b64encode(key).decode(),
            "message": message,
            "headers": [
                ["symmetric-key-uuid", uuid],
                ["validator-hotkey", VALIDATOR.ss58_address],
                ["miner-hotkey", MINER.ss58_address],
                ["nonce", nonce],
                ["signature", sign(VALIDATOR, message)],
            ],
            "exchange": json.dumps(
                {"encrypted_symmetric_key": base64.b64encode(public.encrypt(key, OAEP)).decode()}
            ),
            "content": content,
            "token": fernet.encrypt_at_time(content.encode(), SECOND).decode(),
        })
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public_pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return {"private_key": pem.decode(), "public_key": public_pem.decode(), "cases": cases}


def write():
    vectors = {
        "second": SECOND,
        "validator": VALIDATOR.ss58_address,
        "miner": MINER.ss58_address,
        "plain": plain(),
        "encrypted": encrypted(),
    }
    (HERE / "fiber.json").write_text(json.dumps(vectors, indent=2, ensure_ascii=True) + "\n")


def verify(address, message, signature):
    keypair = Keypair(ss58_address=address, ss58_format=42)
    assert keypair.verify(message, signature), message


def check():
    begin = time.monotonic()
    vectors = json.loads((HERE / "mycelium.json").read_text())
    private = serialization.load_pem_private_key(
        json.loads((HERE / "fiber.json").read_text())["encrypted"]["private_key"].encode(), None
    )
    for one in vectors["plain"]:
        headers = dict(one["headers"])
        message = f"{headers['nonce']}:{headers['miner-hotkey']}"
        if one["body"] is not None:
            message += ":" + hashlib.sha256(base64.b64decode(one["body"])).hexdigest()
        verify(headers["validator-hotkey"], message, headers["signature"])
    for one in vectors["encrypted"]:
        headers = dict(one["headers"])
        uuid = headers["symmetric-key-uuid"]
        verify(headers["validator-hotkey"], f"{headers['nonce']}:{headers['miner-hotkey']}:{uuid}", headers["signature"])
        key = private.decrypt(base64.b64decode(json.loads(one["exchange"])["encrypted_symmetric_key"]), OAEP)
        assert Fernet(base64.b64encode(key)).decrypt(one["token"].encode()) == one["content"].encode()
        assert Fernet(one["symmetric_key"]).decrypt(one["token"].encode()) == one["content"].encode()
        public = private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        bound = hashlib.sha256(b"mycelium-key-v1." + key + public.strip()).hexdigest()
        assert uuid == "mycelium-key-v1." + bound
    for one in vectors["strict"]:
        headers = dict(one["headers"])
        body = base64.b64decode(one["body"])
        message = "\n".join([
            "mycelium-v1", one["method"], one["path"], one["query"], hashlib.sha256(body).hexdigest(),
            headers["mycelium-sender"], headers["mycelium-receiver"], headers["mycelium-time"], headers["mycelium-nonce"],
        ])
        assert message == one["message"]
        verify(headers["mycelium-sender"], message, headers["mycelium-signature"])
        answer = one["response"]
        message = "\n".join([
            "mycelium-response-v1", str(answer["status"]), hashlib.sha256(base64.b64decode(answer["body"])).hexdigest(),
            headers["mycelium-sender"], headers["mycelium-receiver"], headers["mycelium-nonce"],
        ])
        verify(headers["mycelium-receiver"], message, answer["mycelium-response-signature"])
    for one in vectors["records"]:
        lines = [
            "mycelium-record-v1",
            f"hotkey: {one['hotkey']}",
            f"netuid: {one['netuid']}",
            f"genesis_hash: {one['genesis_hash'] or ''}",
            f"kind: {one['kind']}",
            f"version: {one['version']}",
            f"schemes: {' '.join(one['schemes'])}",
            f"consensus_address: {one['consensus_address'] or ''}",
            f"time_ms: {one['time_ms']}",
            f"challenge: {one['challenge']}",
        ]
        verify(one["hotkey"], "\n".join(lines), one["signature"])
    counts = [len(vectors[name]) for name in ("plain", "encrypted", "strict", "records")]
    assert all(counts), "a scheme without vectors proves nothing"
    print(f"{sum(counts)} passed in {time.monotonic() - begin:.1f}s")


if __name__ == "__main__":
    check() if "--check" in sys.argv else write()
