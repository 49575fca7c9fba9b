"""The operators' page as files over HTTP (contract, section 3a)."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
import pytest_twisted

from heartbeat_service.web.pages import INDEX, Pages
from tests.integration.conftest import Answer, Running, Serve
from tests.messages import over_http

LARGEST = 120 * 1024
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


async def ask(running: Running, first_line: str, *lines: str) -> Answer:
    wire = await running.wire()
    wire.send(over_http(first_line, *lines))
    answer = await wire.answer(to_head=first_line.startswith("HEAD"))
    wire.abort()
    return answer


@pytest_twisted.ensureDeferred
async def test_each_file_of_the_page_comes_with_the_contracts_headers(
    running: Running,
) -> None:
    for path in ["/", *(f"/page/{name}" for name in sorted(Pages().names))]:
        answer = await ask(running, f"GET {path}")
        head = await ask(running, f"HEAD {path}")
        assert (answer.status, head.status) == (200, 200)
        assert {**answer.headers, **HEADERS} == answer.headers
        kind = "." + (path.rpartition(".")[2] if path != "/" else "html")
        assert answer.headers["content-type"] == KINDS[kind]
        assert head.headers["etag"] == answer.headers["etag"]
        assert int(head.headers["content-length"]) == len(answer.body)


@pytest.mark.parametrize("known", ["{}", "W/{}", '"other", {}'])
@pytest_twisted.ensureDeferred
async def test_what_a_browser_has_already_is_not_sent_again(
    running: Running, known: str
) -> None:
    etag = (await ask(running, "GET /")).headers["etag"]
    again = await ask(running, "GET /", f"If-None-Match: {known.format(etag)}")
    other = await ask(running, "GET /", 'If-None-Match: "other"')
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
    assert other.status == 200


@pytest_twisted.ensureDeferred
async def test_who_unpacks_is_sent_it_packed_under_a_tag_of_its_own(
    running: Running,
) -> None:
    plain = await ask(running, "GET /")
    packed = await ask(running, "GET /", "Accept-Encoding: gzip, br")
    assert gzip.decompress(packed.body) == plain.body
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["etag"] != plain.headers["etag"]
    assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize(
    "path",
    ["/page", "/page/", "/page/none.js", "/page/__init__.py", "/page/..%2fapp.py"],
)
@pytest_twisted.ensureDeferred
async def test_nothing_but_the_files_of_the_page_is_handed_out(
    running: Running, path: str
) -> None:
    answer = await ask(running, f"GET {path}")
    assert (answer.status, answer.json()["code"]) == (404, "BAD_MESSAGE")


@pytest_twisted.ensureDeferred
async def test_whatever_is_answered_below_the_page_comes_with_its_headers(
    running: Running,
) -> None:
    for line, status in (
        ("GET /page/", 404),
        ("GET /page/none.js", 404),
        ("GET /page/..%2fapp.py", 404),
        ("GET /page/../app.py", 404),
        ("POST /page/page.css", 405),
        ("DELETE /", 405),
    ):
        answer = await ask(running, line)
        assert answer.status == status
        assert {**answer.headers, **HEADERS} == answer.headers
        assert "etag" not in answer.headers
    refused = await ask(running, "GET /", "Origin: http://evil.example")
    assert refused.status == 403
    assert {**refused.headers, **HEADERS} == refused.headers
    assert "content-security-policy" not in (await ask(running, "GET /none")).headers


@pytest.mark.parametrize("accepted", ["gzip;q=0", "br, GZIP ; q=0.000", "xgzip", "br"])
@pytest_twisted.ensureDeferred
async def test_who_does_not_unpack_is_sent_it_as_it_is(
    running: Running, accepted: str
) -> None:
    answer = await ask(running, "GET /", f"Accept-Encoding: {accepted}")
    assert "content-encoding" not in answer.headers
    assert answer.body.startswith(b"<!")


@pytest.mark.parametrize("accepted", ["br;q=0, gzip;q=0.5", "GZIP"])
@pytest_twisted.ensureDeferred
async def test_who_unpacks_may_say_how_gladly(running: Running, accepted: str) -> None:
    answer = await ask(running, "GET /", f"Accept-Encoding: {accepted}")
    assert answer.headers["content-encoding"] == "gzip"


@pytest_twisted.ensureDeferred
async def test_the_page_opens_without_a_token_from_a_bookmark_and_with_a_query(
    serve: Serve, tmp_path: Path
) -> None:
    tokens = tmp_path / "operators"
    tokens.write_text("operator-token-one\n")
    running = await serve(operator_token_file=str(tokens))
    typed = await ask(running, "GET /?view=table", "Sec-Fetch-Site: none")
    linked = await ask(running, "GET /", "Sec-Fetch-Site: cross-site")
    assert (typed.status, linked.status) == (200, 403)
    assert b"operator-token" not in typed.body


def test_the_page_is_small_when_it_is_sent() -> None:
    pages = Pages()
    assert sum(len(pages.read(name).packed) for name in pages.names) < LARGEST


def test_the_page_loads_nothing_of_anybody_else() -> None:
    pages = Pages()
    assert INDEX in pages.names
    for name in pages.names:
        content = pages.read(name).content
        addresses = set(re.findall(rb"https?://[^\s\"'`$]+", content))
        assert addresses <= {b"http://www.w3.org/2000/svg"}, name
        for path in re.findall(rb"(?:from \"\.|=\"/page)/([a-z.]+)\"", content):
            assert path.decode() in pages.names, name


def test_no_file_of_the_page_says_what_its_policy_forbids() -> None:
    pages = Pages()
    for name in pages.names:
        content = pages.read(name).content
        for forbidden in (b" style=", b" onclick=", b"innerHTML", b"eval(", b"<style"):
            assert forbidden not in content, (name, forbidden)
