"""Tests of the heartbeat service."""
