"""Plain Klein with the standard library's JSON."""

from __future__ import annotations

import json
import time

from klein import Klein
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.web.http import Request
from twisted.web.iweb import IRequest
from twisted.web.server import Site

from bench.contestants import reply

app = Klein()
last_beats: dict[str, float] = {}


@app.route("/heartbeat", methods=["POST"])
def heartbeat(request: IRequest) -> bytes:
    """Keep when it beat."""
    body = json.load(request.content)["body"]
    last_beats[body["clientID"]] = time.monotonic()
    answer = json.dumps(reply(body["clientID"], body["instanceID"])).encode()
    request.setHeader("Content-Type", "application/json")
    request.setHeader("Content-Length", str(len(answer)))
    return answer


class QuietSite(Site):
    """A site that keeps no access log."""

    def log(self, request: Request) -> None:
        """Write nothing down."""


if __name__ == "__main__":
    listening = serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(
        QuietSite(app.resource())
    )
    listening.addCallback(
        lambda port: print(f"listens on 127.0.0.1:{port.getHost().port}", flush=True)
    )
    reactor.run()
