"""Unit tests of what people are told."""
