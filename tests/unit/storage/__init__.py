"""Stores and the journal."""
