"""The JavaScript client as a program: a page of another origin, in a real Chromium.

One browser for all, in a thread with an event loop of its own; a page in a context of
its own for each client. What a page logs is what a program prints. Knows no case.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from playwright.async_api import Browser, BrowserContext, Page, async_playwright
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from typing_extensions import override

from tests.browser.service import is_root
from tests.integration.processes import ROOT
from tests.integration.waiting import PATIENCE, patiently, reactor

T = TypeVar("T")
MODULES = ROOT / "clients/javascript"

#: What the page is: it begins when it is told to, and logs what a program prints.
PAGE = b"""<!doctype html>
<link rel="icon" href="data:,">
<script type="module">
import { GameClient, baseURL, checkClientID } from "/heartbeat.js";
import { changeOf, complaintOf } from "/lines.mjs";

const checked = (option, check, value) => {
  try {
    check(value);
    return true;
  } catch (error) {
    console.warn(`--${option}: ${error.message}`);
    window.over();
    return false;
  }
};

window.begin = (options) => {
  if (!checked("id", checkClientID, options.clientID)) return;
  if (!checked("server", baseURL, options.server)) return;
  const onEvent = (event) => {
    const change = changeOf(options.clientID, event);
    if (change !== null) console.log(change);
    else console.warn(complaintOf(options.clientID, event));
    if (event.type === "Superseded") window.over();
  };
  window.client = new GameClient({ ...options, onEvent });
  window.client.start();
};
</script>
"""


def missing() -> str | None:
    """Why there can't be such a page here; None if there can."""
    return None if shutil.which("chromium") else "there is no chromium here"


class _Handler(SimpleHTTPRequestHandler):
    @override
    def do_GET(self) -> None:
        if self.path != "/":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    @override
    def log_message(self, *_: object) -> None:
        pass  # nobody reads it


class Chromium:
    """The browser, and the server of the page.

    :ivar origin: the page's.
    """

    def __init__(self) -> None:
        handler = partial(_Handler, directory=str(MODULES))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        self._loop = asyncio.new_event_loop()
        self._threads = [
            Thread(target=self._loop.run_forever, daemon=True),
            Thread(target=self._server.serve_forever, daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self._playwright = async_playwright()
        self._browser = self.run(self._launch())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Have it done in the browser's thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def new_page(self) -> tuple[BrowserContext, Page]:
        """A page of its own, which has loaded the client; in the browser's thread."""
        browser = await asyncio.wrap_future(self._browser)
        context = await browser.new_context()
        context.set_default_timeout(PATIENCE * 1000)
        page = await context.new_page()
        await page.goto(self.origin)
        await page.wait_for_function("() => Boolean(window.begin)")
        return context, page

    def close(self) -> None:
        """End all of it."""
        self.run(self._end()).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join(PATIENCE)
        self._loop.close()

    async def _launch(self) -> Browser:
        playwright = await self._playwright.start()
        arguments = ["--disable-dev-shm-usage", "--no-proxy-server", "--disable-gpu"]
        arguments += ["--no-sandbox"] if is_root() else []
        return await playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=arguments,
            timeout=PATIENCE * 1000,
        )

    async def _end(self) -> None:
        browser = await asyncio.wrap_future(self._browser)
        await browser.close()
        await self._playwright.__aexit__()


@cache
def chromium() -> Chromium:
    """The one that all share; it starts with the first of them."""
    return Chromium()


def close() -> None:
    """End it, if there is one."""
    if chromium.cache_info().currsize:
        chromium().close()
        chromium.cache_clear()


class Kiosk:
    """A client that is a page; see ``clients.Program``.

    :param options: as a program's: ``--id``, ``--server``, ``--token-file``.
    :ivar page: its context and the page, for who works in the browser's thread.
    """

    def __init__(self, *options: str | Path) -> None:
        self.told = ""
        self.output = ""
        self.status: int | None = None
        self._given = dict(zip(options[::2], options[1::2], strict=True))
        self._waiting: list[Deferred[None]] = []
        self.page = chromium().run(self._begin())
        self.page.add_done_callback(self._begun)

    def signal(self, name: str) -> None:
        """End it: by its own Goodbye with INT and TERM, without one with KILL."""
        end = self._kill if name == "KILL" else self._stop
        in_browser(end()).addCallbacks(self._ended, self._failed)

    async def ends(self, signal: str | None = None) -> int:
        """Its exit status, once it has ended; with ``signal``, of it."""
        if self.status is None and signal is not None:
            self.signal(signal)
        if self.status is None:
            ended: Deferred[None] = Deferred()
            self._waiting.append(ended)
            await patiently(ended)
        assert self.status is not None
        return self.status

    async def _begin(self) -> tuple[BrowserContext, Page]:
        context, page = await chromium().new_page()
        page.on("console", lambda line: self._hear(line.type, line.text))
        page.on("pageerror", lambda error: self._hear("error", str(error)))
        await page.expose_function("over", partial(self._in_reactor, self._over))
        token = self._given.get("--token-file")
        options = {
            "clientID": str(self._given["--id"]),
            "server": str(self._given["--server"]),
            **({"token": Path(token).read_text().strip()} if token else {}),
        }
        await page.evaluate("options => window.begin(options)", options)
        return context, page

    def _hear(self, kind: str, text: str) -> None:
        self._in_reactor(self._print, kind, text)

    def _in_reactor(self, call: Callable[..., None], *arguments: object) -> None:
        reactor.callFromThread(call, *arguments)

    def _print(self, kind: str, text: str) -> None:
        # What Chromium itself says of a fetch that failed is no line of a program's.
        is_own = re.match(rf"\d{{4}}-|--|{re.escape(str(self._given['--id']))}: ", text)
        self.output += f"{text}\n" if is_own else f"(chromium) {text}\n"
        if kind == "log":
            self.told += f"{text}\n"

    def _begun(self, page: Future[tuple[BrowserContext, Page]]) -> None:
        if (error := page.exception()) is not None:
            self._hear("error", f"it did not begin: {error}")

    def _over(self) -> None:
        """It has ended by itself."""
        in_browser(self._close(1)).addCallbacks(self._ended, self._failed)

    def _ended(self, status: int) -> None:
        self.status = status
        for waiting in self._waiting:
            waiting.callback(None)
        self._waiting = []

    def _failed(self, failure: Failure) -> None:
        self.output += failure.getTraceback()
        self._ended(1)

    async def _stop(self) -> int:
        _, page = await asyncio.wrap_future(self.page)
        await page.evaluate("window.client.stop()")
        return await self._close(0)

    async def _kill(self) -> int:
        context, _ = await asyncio.wrap_future(self.page)
        await context.set_offline(True)  # no last word gets out
        return await self._close(-signal.SIGKILL)

    async def _close(self, status: int) -> int:
        context, _ = await asyncio.wrap_future(self.page)
        await context.close()
        return status


def in_browser(coroutine: Coroutine[Any, Any, int]) -> Deferred[int]:
    """What comes of it in the browser's thread, for the reactor's."""
    deferred: Deferred[int] = Deferred()

    def fire(done: Future[int]) -> None:
        error = done.exception()
        if error is None:
            reactor.callFromThread(deferred.callback, done.result())
        else:
            reactor.callFromThread(deferred.errback, error)

    chromium().run(coroutine).add_done_callback(fire)
    return deferred
