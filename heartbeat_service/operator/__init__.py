"""``heartbeatctl``: the operators' program, a client of the HTTP contract.

A command finds out whom it means, shows that, asks, and sends an order to exactly those
whom it has shown. What comes from clients is never printed as it is: a terminal obeys
control codes. Knows the routes of the contract's sections 3 and 3a, and no rule of the
service.
"""
