"""/openapi.json and /asyncapi.json: they are valid, and say what the routes say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import jsonschema
from openapi_spec_validator import validate
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core import errors
from heartbeat_service.protocol.codec import encode_json
from heartbeat_service.protocol.events import EVENTS
from heartbeat_service.protocol.messages import OnStateChange, Reply, Request
from heartbeat_service.web.app import HeartbeatApp
from heartbeat_service.web.asyncapi import asyncapi
from heartbeat_service.web.events import FOR_CLIENTS
from heartbeat_service.web.openapi import openapi
from heartbeat_service.web.route import Who

PROTOCOL = Path(__file__).parents[3].joinpath("docs", "protocol.md").read_text("utf-8")


def read(document: Any) -> Any:
    """As it is sent."""
    return json.loads(encode_json(document))


def openapi_of(*, tokens: bool) -> Any:
    return read(
        openapi(
            HeartbeatApp.routes.values(),
            {Who.CLIENTS: tokens, Who.OPERATORS: tokens},
        )
    )


def refs(part: Any) -> Iterator[str]:
    """All places that a document names."""
    for inner in part.values() if isinstance(part, dict) else part:
        if isinstance(inner, dict | list):
            yield from refs(inner)
    if isinstance(part, dict) and isinstance(part.get("$ref"), str):
        yield part["$ref"]


def find(document: Any, ref: str) -> Any:
    for name in ref.removeprefix("#/").split("/"):
        document = document[name]
    return document


OPENAPI = openapi_of(tokens=True)
ASYNCAPI = read(asyncapi("tcp://10.0.0.1:8765", "tcp://10.0.0.1:4321"))


class TestOpenAPI(SynchronousTestCase):
    def test_it_is_valid(self) -> None:
        validate(OPENAPI)
        self.assertTrue(OPENAPI["openapi"].startswith("3.1."))
        for schema in OPENAPI["components"]["schemas"].values():
            jsonschema.Draft202012Validator.check_schema(schema)

    def test_each_route_of_klein_is_in_it_and_no_other(self) -> None:
        told = {
            (method.upper(), path)
            for path, item in OPENAPI["paths"].items()
            for method in item
        }
        routed = {
            (method, re.sub("<(?:client_)?(.*?)>", r"{\1}", rule.rule))
            for rule in HeartbeatApp.app.url_map.iter_rules()
            for method in (rule.methods or set()) - {"HEAD"}
        }
        self.assertEqual(told, routed)
        self.assertGreater(len(told), 20)

    def test_each_operation_has_a_name_of_its_own(self) -> None:
        names = [one["operationId"] for one in self.operations()]
        self.assertEqual(len(set(names)), len(names))

    def test_each_operation_says_whose_it_is_and_what_for(self) -> None:
        for operation in self.operations():
            with self.subTest(operation=operation["operationId"]):
                [who] = operation["tags"]
                token = {"clients": "clientToken", "operators": "operatorToken"}
                wanted = [token[who]] if who in token else []
                self.assertEqual([*chain(*operation["security"])], wanted)
                self.assertTrue(operation["summary"])

    def test_where_no_token_is_wanted_it_may_be_left_out(self) -> None:
        item = openapi_of(tokens=False)["paths"]["/clients"]
        self.assertEqual(item["get"]["security"], [{}, {"operatorToken": []}])

    def test_each_code_is_told_with_its_status(self) -> None:
        told: dict[str, set[str]] = {}
        for response in OPENAPI["components"]["responses"].values():
            content = response["content"]["application/problem+json"]
            said = content["schema"]["properties"]
            for code in said["code"]["enum"]:
                told.setdefault(code, set()).add(str(said["status"]["const"]))
        rows = re.findall(r"^\| `([A-Z_]+)` \| (\d\d\d.*?) \|", PROTOCOL, re.MULTILINE)
        told_in_words = {code: set(re.findall(r"\d\d\d", text)) for code, text in rows}
        # Of a path that isn't there.
        told_in_words["BAD_MESSAGE"] -= {"405", "501"}
        self.assertEqual(told, told_in_words)
        self.assertEqual(len(told), len(errors.HeartbeatError.__subclasses__()))

    def test_what_a_route_refuses_is_told_there(self) -> None:
        responses = OPENAPI["paths"]["/clients/{id}/state"]["put"]["responses"]
        self.assertEqual(
            responses["409"],
            {"$ref": "#/components/responses/409.ILLEGAL_TRANSITION.STALE_SEQUENCE"},
        )
        self.assertEqual(
            sorted(responses),
            ["200", *map(str, (400, 401, 403, 404, 408, 409, 413, 414, 415, 431, 503))],
        )
        of_beats = OPENAPI["paths"]["/heartbeat"]["post"]["responses"]
        self.assertIn("403.FORBIDDEN.LOCKED_OUT", of_beats["403"]["$ref"])
        self.assertIn("INSTANCE_SUPERSEDED.STALE_INCARNATION", of_beats["409"]["$ref"])
        self.assertIn("404.UNKNOWN_CLIENT", of_beats["404"]["$ref"])

    def test_each_field_and_parameter_that_the_protocol_tells_is_there(self) -> None:
        section = PROTOCOL.partition("\n## 3. HTTP")[2].partition("\n### 3a")[0]
        first_columns = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        words = {
            word
            for column in first_columns
            for word in re.findall(r"`([a-z]\w*)(?:=.*?)?`", column)
        }
        self.assertGreater(len(words), 25)
        schemas = OPENAPI["components"]["schemas"].values()
        known = {name for schema in schemas for name in schema.get("properties", ())}
        known |= {
            parameter["name"]
            for operation in self.operations()
            for parameter in operation.get("parameters", ())
        }
        self.assertEqual(words - known, set())

    def operations(self) -> Iterator[Any]:
        for item in OPENAPI["paths"].values():
            yield from item.values()


class TestAsyncAPI(SynchronousTestCase):
    """AsyncAPI's own schema comes with no package of Python, so its rules by hand."""

    def test_each_place_that_it_names_is_there(self) -> None:
        names = set(refs(ASYNCAPI))
        self.assertGreater(len(names), 40)
        for name in names:
            with self.subTest(name=name):
                self.assertIsInstance(find(ASYNCAPI, name), dict)

    def test_it_has_what_asyncapi_asks_for(self) -> None:
        self.assertEqual(ASYNCAPI["asyncapi"], "3.0.0")
        self.assertLessEqual({"title", "version"}, set(ASYNCAPI["info"]))
        for server in ASYNCAPI["servers"].values():
            self.assertLessEqual({"host", "protocol"}, set(server))
        for channel in ASYNCAPI["channels"].values():
            in_address = re.findall(r"\{(\w+)\}", channel["address"] or "")
            self.assertEqual(in_address, list(channel.get("parameters", ())))
        for operation in ASYNCAPI["operations"].values():
            self.assertIn(operation["action"], ("send", "receive"))
            channel = operation["channel"]["$ref"]
            for message in refs(operation.get("messages", [])):
                self.assertTrue(message.startswith(f"{channel}/messages/"))
        for schema in ASYNCAPI["components"]["schemas"].values():
            jsonschema.Draft7Validator.check_schema(schema)

    def test_the_servers_are_those_that_clients_are_told(self) -> None:
        servers = ASYNCAPI["servers"]
        self.assertEqual(servers["router"]["host"], "10.0.0.1:8765")
        self.assertEqual(servers["pub"]["host"], "10.0.0.1:4321")

    def test_each_message_of_zeromq_is_in_it(self) -> None:
        operation = ASYNCAPI["operations"]["answerRequests"]
        for kinds, told in (
            (get_args(Request), operation["messages"]),
            (get_args(Reply), operation["reply"]["messages"]),
        ):
            names = [ref.rpartition("/")[2] for ref in refs(told)]
            self.assertEqual(names, [kind.message_type for kind in kinds])
        published = ASYNCAPI["channels"]["changes"]["messages"]
        self.assertEqual(list(published), [OnStateChange.message_type])

    def test_each_event_of_the_contract_is_in_it_with_its_fields(self) -> None:
        section = PROTOCOL.partition("\n### 3a")[2].partition("\n## 4")[0]
        rows = re.findall(r"^\| (`[A-Z].*?`) \| (.*) \|$", section, re.MULTILINE)
        told = ASYNCAPI["channels"]["events"]["messages"]
        self.assertEqual(set(told), {event.event for event in EVENTS})
        names = {name for row, _ in rows for name in re.findall(r"`(\w+)`", row)}
        self.assertEqual(names, set(told))
        words = set(re.findall(r"`(\w+)`", section))
        published = OnStateChange.__struct_encode_fields__
        for event in EVENTS:
            fields = set(event.__struct_encode_fields__)
            self.assertEqual(fields - words - {*published}, set(), event)
        self.assertEqual(
            set(ASYNCAPI["channels"]["clientEvents"]["messages"]), set(FOR_CLIENTS)
        )
