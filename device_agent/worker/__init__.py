"""The process that serves one lease: its client's session on one device."""
