"""The fleet, without a network."""
