"""Watch every change of state on a raw SUB socket: plain pyzmq, nothing of ours.

usage: python examples/watch.py [TOPIC [ADDRESS]]
"""

import sys

import zmq

topic = sys.argv[1] if len(sys.argv) > 1 else "OnStateChange/"
address = sys.argv[2] if len(sys.argv) > 2 else "tcp://127.0.0.1:4321"

socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
socket.subscribe(topic)
socket.connect(address)
try:
    while True:
        print(*(frame.decode() for frame in socket.recv_multipart()), flush=True)
except KeyboardInterrupt:
    pass
