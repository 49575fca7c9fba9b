"""What many machines cost: members of etcd and nodes as processes here, and a model.

``costs.py`` and ``failover.py`` measure them. ``model.py`` reckons from that how
thousands of machines would do, and measures nothing.
"""
