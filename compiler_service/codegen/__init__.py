"""Lowered IR → code, one family of files a language: ``llvm*.py`` for CPUs."""
