"""What routes may be asked with: the parameters of their queries, and headers.

Each says what it means and reads its own values. Knows no route, and nothing of what
one answers.
"""

from __future__ import annotations

from heartbeat_service.core.states import ClientState
from heartbeat_service.web.query import (
    Kind,
    Parameter,
    Parameters,
    decimal,
    label,
    one_of,
    start_of_id,
    whole_number,
    yes_or_no,
)

_LIVING = [state for state in ClientState if state is not ClientState.DISCONNECTED]

#: What ``GET /clients`` may be asked with.
LISTED: Parameters = {
    "state": Parameter(
        one_of({state.value: state for state in _LIVING}), "Those in that state."
    ),
    "label": Parameter(
        label,
        "Those with that label, `NAME:VALUE`, or with all of them.",
        repeated=True,
    ),
    "late": Parameter(yes_or_no, "Those that are late, or those that aren't."),
    "prefix": Parameter(start_of_id, "Those whose ID begins so."),
    "limit": Parameter(
        whole_number(1, 10_000),
        "The first so many; the answer has `next` then: the `after` of the next page.",
    ),
    "after": Parameter(whole_number(0, 2**63 - 1), "Those behind that place."),
    "gone": Parameter(
        yes_or_no,
        "Those that were here and are not, the last to go first; without `state` and "
        "`late` then.",
    ),
    "since": Parameter(
        decimal, "With `gone=true`: those that went within so many seconds."
    ),
}


def _read_hold(value: str) -> str:
    if not value:
        raise ValueError("Expected the `hold` of `GET /mass-loss`")
    return value


_hold = Kind(_read_hold, {"type": "string", "minLength": 1})

#: What ``DELETE /mass-loss`` may be asked with.
ENDED: Parameters = {"hold": Parameter(_hold, "Only if it is that one.")}

#: The header of who comes back to a stream.
LAST_EVENT_ID = {
    "Last-Event-ID": "The id of the last event that was read: what came after it."
}

#: The header of who has something already.
IF_NONE_MATCH = {"If-None-Match": "The ETags of what the browser has."}
