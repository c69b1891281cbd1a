"""Schedules: transformations of tensor programs that keep their meaning, each checked, recorded and replayable.

``schedule.Schedule`` is what people use. Below it each family of primitives is a file of pure functions
``(PrimFunc, …) -> (PrimFunc, result)``; ``tree`` finds and replaces statements, ``dependencies`` says what may move.
"""
