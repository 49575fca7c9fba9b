"""The wire contract: what messages look like, and their bytes.

A message is a struct that names its fields and their limits; one codec makes structs of
bytes and bytes of structs, or an error that says where the bytes are wrong. HTTP and
ZeroMQ share it, so a message is the same by both.

Knows no transport, and nothing of what a message does.
"""
