"""A miner: serves HTTP at its axon's port and says at /health how its node stands on the chain."""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mycelium.errors import MyceliumError
from mycelium.sidecar import Sidecar

PORT = int(os.environ.get("PORT", "8091"))
sidecar = Sidecar()


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    timeout = 10

    def do_GET(self) -> None:
        """Serve /health."""
        if self.path != "/health":
            return self.answer(404, {"error": f"nothing is served at {self.path}, see /health"})
        try:
            status = sidecar.status()
        except MyceliumError as error:
            return self.answer(503, {"error": str(error)})
        uid = status.neuron.uid if status.neuron else None
        body = {"hotkey": status.hotkey, "netuid": status.netuid, "uid": uid, "block": status.chain.block}
        return self.answer(200, {**body, "chain_synced": status.chain.synced})

    def answer(self, code: int, body: dict[str, object]) -> None:
        """Send a JSON object."""
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    # The first process of a container dies of SIGTERM only when it asks to.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ThreadingHTTPServer(("", PORT), Handler) as server:
        print(f"serving on port {server.server_port}", flush=True)
        server.serve_forever()
