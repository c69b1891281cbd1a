"""Graph functions (``@R.function``) in script text, read as ``crossfarm.ir.graph`` has them.

``functions`` reads signatures and functions in the order in which their types become known, ``statements`` bodies,
``values`` expressions, ``calls`` operators and calls of other functions, ``constants`` numbers; ``types`` is what
annotations say, ``context`` what the parser knows inside a function.
"""
