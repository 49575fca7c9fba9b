"""What is told without being asked for each time, for machines: AsyncAPI 3.0.

The ROUTER's requests and replies, what PUB publishes, and the events that are streamed
over HTTP (contract, sections 3a to 5). Made of the messages' and the events' structs,
so nothing in it is written twice. Knows no socket and no route.
"""

from __future__ import annotations

from collections.abc import Iterable
from inspect import cleandoc
from typing import get_args

from heartbeat_service import __version__
from heartbeat_service.protocol.codec import whole
from heartbeat_service.protocol.events import EVENTS, Event
from heartbeat_service.protocol.messages import (
    Message,
    OnStateChange,
    Reply,
    Request,
)
from heartbeat_service.protocol.schema import Schema, components, in_plain_words, ref
from heartbeat_service.web.events import FOR_CLIENTS

_REQUESTS: tuple[type[Message], ...] = get_args(Request)
_REPLIES: tuple[type[Message], ...] = get_args(Reply)

_JSON = "application/json"
_ID = {"clientID": {"description": "The client's.", "examples": ["headset-1"]}}


def asyncapi(request_endpoint: str, state_change_endpoint: str) -> Schema:
    """The document.

    :param request_endpoint: where clients send requests, as they are told.
    :param state_change_endpoint: where they subscribe.
    """
    for_one = [event for event in EVENTS if event.event in FOR_CLIENTS]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "heartbeat-service",
            "version": __version__,
            "description": "Requests, publications and events of the service. "
            "docs/protocol.md tells the rules, /openapi.json the rest of HTTP.",
        },
        "defaultContentType": _JSON,
        "servers": {
            "router": _zeromq(request_endpoint, "A ROUTER socket, for REQ and DEALER."),
            "pub": _zeromq(state_change_endpoint, "A PUB socket, for SUB."),
            "http": {
                "host": "{host}",
                "protocol": "http",
                "description": "Where this document was found.",
                "variables": {"host": {"default": "127.0.0.1:6969"}},
            },
        },
        "channels": {
            "requests": {
                "address": None,
                "description": "One frame with one message, with or without the empty "
                "frame that REQ sends before it; the reply has the same shape.",
                "servers": [{"$ref": "#/servers/router"}],
                "messages": _by_name(_REQUESTS + _REPLIES),
            },
            "changes": {
                "address": "OnStateChange/{clientID}/",
                "description": "Two frames: the topic, which is this address, then the "
                "message. The prefix `OnStateChange/` hears everyone.",
                "servers": [{"$ref": "#/servers/pub"}],
                "parameters": _ID,
                "messages": _by_name([OnStateChange]),
            },
            "events": _stream("/events", EVENTS),
            "clientEvents": _stream("/clients/{clientID}/events", for_one, _ID),
        },
        "operations": {
            "answerRequests": {
                "action": "receive",
                "channel": {"$ref": "#/channels/requests"},
                "messages": _refs("requests", _REQUESTS),
                "reply": {
                    "channel": {"$ref": "#/channels/requests"},
                    "messages": _refs("requests", _REPLIES),
                },
            },
            "publishChanges": _sends("changes"),
            "tellEvents": _sends("events"),
            "tellClientEvents": _sends("clientEvents"),
        },
        "components": {
            "messages": {
                **{kind.message_type: _message(kind) for kind in _messages()},
                **{_event_name(event): _event(event) for event in EVENTS},
            },
            "schemas": components(
                received=map(whole, _REQUESTS),
                sent=[*map(whole, (*_REPLIES, OnStateChange)), *EVENTS],
            ),
        },
    }


def _messages() -> Iterable[type[Message]]:
    return (*_REQUESTS, *_REPLIES, OnStateChange)


def _zeromq(endpoint: str, text: str) -> Schema:
    protocol, _, host = endpoint.partition("://")
    return {
        "host": host,
        "protocol": "zmq",
        "description": f"{text} By {protocol.upper()}: `{endpoint}`.",
    }


def _stream(
    address: str, events: Iterable[type[Event]], parameters: Schema | None = None
) -> Schema:
    return {
        "address": address,
        "description": "A GET, answered with `text/event-stream`: `id:` is RUN-NUMBER, "
        "`event:` the name of the message, `data:` its payload, and a comment comes "
        "every 5 s. `Last-Event-ID` has what was missed come first.",
        "servers": [{"$ref": "#/servers/http"}],
        **({"parameters": parameters} if parameters else {}),
        "messages": {
            event.event: {"$ref": f"#/components/messages/{_event_name(event)}"}
            for event in events
        },
    }


def _by_name(messages: Iterable[type[Message]]) -> Schema:
    return {
        kind.message_type: {"$ref": f"#/components/messages/{kind.message_type}"}
        for kind in messages
    }


def _refs(channel: str, messages: Iterable[type[Message]]) -> list[Schema]:
    return [
        {"$ref": f"#/channels/{channel}/messages/{kind.message_type}"}
        for kind in messages
    ]


def _sends(channel: str) -> Schema:
    return {"action": "send", "channel": {"$ref": f"#/channels/{channel}"}}


def _message(kind: type[Message]) -> Schema:
    return {
        "name": kind.message_type,
        "summary": _summary(kind),
        "payload": ref(whole(kind)),
        "correlationId": {"location": "$message.payload#/requestID"},
    }


def _event(event: type[Event]) -> Schema:
    return {"name": event.event, "summary": _summary(event), "payload": ref(event)}


def _event_name(event: type[Event]) -> str:
    """Its place among the messages, where ``OnStateChange`` is the published one."""
    return f"event.{event.event}"


def _summary(kind: type) -> str:
    return in_plain_words(cleandoc(kind.__doc__ or "").partition("\n\n")[0])
