"""The passes, one a file; ``compiler_service.pipeline`` says which run, and in what order."""
