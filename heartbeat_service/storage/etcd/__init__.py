"""The store of many machines: records in etcd, written by any node.

``port`` says what is asked of etcd, ``client`` asks it by gRPC. Above the port nothing
knows gRPC, so that a fake etcd on a virtual clock takes the client's place in tests.
"""
