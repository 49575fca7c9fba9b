"""The store of many machines: records in etcd, written by any node.

``port`` says what is asked of etcd, ``client`` asks it by gRPC. Above the port nothing
knows gRPC, so that a fake etcd on a virtual clock takes the client's place in tests.
"""

import os

# GRPC reads them when it is imported. What it has to say is in its errors, too. In a
# child that is about to become another program, its threads would begin anew and crash.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
