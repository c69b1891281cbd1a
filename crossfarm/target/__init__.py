"""Targets: what code is built for. ``Target``, ``merge``, ``misfit``; kinds, tags and CPU features are tables."""

from crossfarm.target.fitting import misfit
from crossfarm.target.kinds import KINDS
from crossfarm.target.tags import TAGS
from crossfarm.target.target import Target, known_words, merge

__all__ = ["KINDS", "TAGS", "Target", "known_words", "merge", "misfit"]
