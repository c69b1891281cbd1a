"""How a target runs loops well: rules that rewrite block form before it is lowered. None yet: a program runs as it is
written, its ``parallel`` loops on one thread."""
