"""A miner: serves HTTP at its axon's port and says at /health how its node stands on the chain."""

import json
import os
import signal
import threading
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
    told_to_stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told_to_stop.set())
    with ThreadingHTTPServer(("", PORT), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        print(f"serving on port {server.server_port}", flush=True)
        told_to_stop.wait()
        server.shutdown()
