"""Tests without a network, on a clock that they turn themselves."""
