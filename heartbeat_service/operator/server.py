"""The way to the service: one question, one answer, or a sentence why there is none.

httpx, without what it would take from elsewhere: no proxy and no netrc of the
environment, and no redirect is followed, so that a token goes to the server that was
named and to nobody else. Knows what an answer of the contract looks like, not what it
means.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from heartbeat_service.operator.settings import SettingError, Settings

if TYPE_CHECKING:
    import httpx

#: Seconds to wait for a connection, and for an answer: an order to many waits until it
#: is durable, and until the orders before it are.
CONNECT, ANSWER = 5.0, 60.0

#: Seconds to wait for anything where somebody waits at a prompt.
QUICK = 1.0

#: Seconds without a byte after which a stream is lost: a comment comes every 5 s.
STREAM_SILENCE = 10.0

#: How many clients one question for a list brings.
PAGE = 1000

Record = dict[str, Any]


class Refused(Exception):
    """The service says no; the text is its sentence.

    :ivar code: the contract's code.
    """

    def __init__(self, detail: str, code: str, problem: Record | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.problem = problem or {"code": code, "detail": detail}


class NoServer(Exception):
    """There is no answer, or not one of the service; the text says why."""


class Server:
    """A service; a context manager that closes the connections.

    :param transport: takes the place of the network, in tests.
    :param quick: whether to give up after a second.
    :raises SettingError: if the CA's file can't be used.
    """

    def __init__(
        self,
        settings: Settings,
        transport: httpx.BaseTransport | None = None,
        quick: bool = False,
    ) -> None:
        import httpx  # takes a while, and not each command needs it

        self.settings = settings
        headers = {"Accept": "application/json"}
        if settings.token is not None:
            headers["Authorization"] = f"Bearer {settings.token}"
        self._failures = (httpx.TransportError, httpx.DecodingError)
        self._invalid = httpx.InvalidURL
        try:
            self._client = httpx.Client(
                base_url=settings.server,
                headers=headers,
                timeout=QUICK if quick else httpx.Timeout(ANSWER, connect=CONNECT),
                transport=transport,
                trust_env=False,
                verify=_trust(settings),
            )
        except httpx.InvalidURL as error:
            raise SettingError(f"server {settings.server!r}: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()

    def get(self, path: str, **parameters: Any) -> Record:
        """Ask; the answer's JSON.

        :param parameters: of the query; those that are None are left out.
        :raises Refused: if the service says no.
        :raises NoServer: if there is no answer.
        """
        given = {name: value for name, value in parameters.items() if value is not None}
        return self._ask("GET", path, params=given)

    def order(self, method: str, path: str, body: Record) -> list[Record]:
        """Send an order; what is answered for each whom it names.

        Raises what :meth:`get` does.
        """
        answers = self._clients(self._ask(method, path, json=body))
        if len(answers) != len(body["clientIDs"]):
            raise self._strange(path)
        return answers

    def tell(self, path: str) -> None:
        """Send an order that names nobody; raises what :meth:`get` does."""
        self._ask("POST", path)

    def pages(self, **parameters: Any) -> Iterator[Record]:
        """The answers of ``GET /clients``, page by page; raises what :meth:`get` does.

        :param parameters: which clients.
        """
        after: int | None = None
        while True:
            page = self.get("/clients", limit=PAGE, after=after, **parameters)
            self._clients(page)
            yield page
            after = page.get("next")
            if after is None:
                return

    @contextmanager
    def stream(self, path: str, last_id: str | None) -> Iterator[Iterator[bytes]]:
        """An event stream's bytes, as they come; raises what :meth:`get` does."""
        headers = {"Accept": "text/event-stream"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        timeout = (CONNECT, STREAM_SILENCE, CONNECT, CONNECT)  # of each step
        try:
            with self._client.stream(
                "GET", path, headers=headers, timeout=timeout
            ) as response:
                if not response.is_success:
                    response.read()
                    self._read(response)
                kind = response.headers.get("Content-Type", "")
                if not kind.startswith("text/event-stream"):
                    raise NoServer(f"{self.settings.server}{path} is no event stream")
                yield response.iter_bytes()
        except self._failures as error:
            raise self._no_answer(error) from None

    def _ask(self, method: str, path: str, **more: Any) -> Record:
        try:
            response = self._client.request(method, path, **more)
        except self._failures as error:
            raise self._no_answer(error) from None
        return self._read(response)

    def _read(self, response: httpx.Response) -> Record:
        if response.status_code == HTTPStatus.NO_CONTENT:
            return {}
        try:
            answer = json.loads(response.content)
        except ValueError:  # a page of something else
            answer = None
        if response.is_success and isinstance(answer, dict):
            return answer
        if not isinstance(answer, dict) or "code" not in answer:
            raise NoServer(
                f"{self.settings.server} answers {response.status_code} to "
                f"{response.request.method} {response.request.url.path}, which is no "
                "answer of a heartbeat service"
            )
        detail, code = str(answer.get("detail")), str(answer["code"])
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            detail = f"{detail}. {self._which_token()}"
        if (seconds := answer.get("retryAfterSeconds")) is not None:
            detail = f"{detail}; try again in {seconds} s"
        raise Refused(detail, code, answer)

    def _which_token(self) -> str:
        if self.settings.token_from is None:
            return (
                "Give an operator's token: --token-file FILE, or HEARTBEAT_TOKEN_FILE, "
                "or token-file in heartbeatctl.toml"
            )
        return f"The token that was sent is the first in {self.settings.token_from}"

    def _clients(self, answer: Record) -> list[Record]:
        clients = answer.get("clients")
        if not isinstance(clients, list):
            raise self._strange("/clients")
        return clients

    def _strange(self, path: str) -> NoServer:
        return NoServer(f"{self.settings.server}{path} is not a heartbeat service's")

    def _no_answer(self, error: Exception) -> NoServer:
        why = str(error) or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in why:
            why += ": --ca FILE (or HEARTBEAT_CA) names whose certificates to trust"
        return NoServer(f"no answer from {self.settings.server}: {why}")


def _trust(settings: Settings) -> ssl.SSLContext:
    if not settings.server.startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody, and loads none
    try:
        return ssl.create_default_context(cafile=settings.ca)
    except OSError as error:  # an SSLError is one, too
        why = error.strerror or str(error)
        raise SettingError(f"--ca {settings.ca}: no PEM certificates: {why}") from None
