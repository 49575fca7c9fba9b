"""Whether those who watch a cluster would notice what goes wrong."""
