"""Routes, without a network."""
