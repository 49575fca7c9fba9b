"""The wire contract: messages, their bytes, and what is answered to which.

The same for every transport; knows none of them.
"""
