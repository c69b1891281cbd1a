"""The tracker: knows every device of the farm, queues the requests for them, and leases them.

Read in this order: ``state`` (what is known), ``events`` (what can happen, and what follows), ``machine`` (the rules,
with ``agents``, ``leases`` and ``waiting``), ``store`` (what survives a kill), ``core`` (the machine, the store and the
clock put together), ``service`` (gRPC).
"""
