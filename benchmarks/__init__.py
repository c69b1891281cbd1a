"""crossfarm beside its peers, measured in one run: ``make bench``. What it measures and why: docs/performance.md."""
