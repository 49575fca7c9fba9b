# The part of pytest-twisted that the tests use; the package itself has no types.

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])

def blockon(d: Deferred[_T]) -> _T: ...
def ensureDeferred(
    f: Callable[..., Coroutine[Any, Any, _T]],
) -> Callable[..., Deferred[_T]]: ...
def async_fixture(f: _F) -> _F: ...
def async_yield_fixture(
    f: Callable[..., AsyncIterator[_T]],
) -> Callable[..., AsyncIterator[_T]]: ...
