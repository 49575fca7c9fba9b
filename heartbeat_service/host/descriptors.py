"""How many descriptors (sockets and files) the process may have open."""

from __future__ import annotations

import resource

#: As many as are ever asked for; some systems' own limit makes no sense.
MOST = 2**20


def allow_most() -> None:
    """Raise the soft limit as far as the hard one lets it be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _number(hard)
    if allowed() < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def allowed() -> int:
    """The soft limit: what stands now."""
    return _number(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _number(limit: int) -> int:
    return MOST if limit == resource.RLIM_INFINITY else min(limit, MOST)
