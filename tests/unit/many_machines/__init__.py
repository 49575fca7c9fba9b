"""Many machines on virtual time: real engines, a fake etcd, all that goes wrong."""
