"""Tests of the benchmark, which measure nothing."""
