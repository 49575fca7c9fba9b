"""Labels: where a client is and what it is, as it says (contract, section 2)."""

from __future__ import annotations

#: Names and values; nobody changes one that is in use.
Labels = dict[str, str]

#: Those of a client that names none: one object for all of them.
NO_LABELS: Labels = {}
