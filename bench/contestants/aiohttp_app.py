"""aiohttp with the standard library's JSON."""

from __future__ import annotations

import time

from aiohttp import web

from bench.contestants import reply

last_beats: dict[str, float] = {}


async def heartbeat(request: web.Request) -> web.Response:
    """Keep when it beat."""
    body = (await request.json())["body"]
    last_beats[body["clientID"]] = time.monotonic()
    return web.json_response(reply(body["clientID"], body["instanceID"]))


if __name__ == "__main__":
    app = web.Application()
    app.add_routes([web.post("/heartbeat", heartbeat)])
    web.run_app(app, host="127.0.0.1", port=0, access_log=None)
