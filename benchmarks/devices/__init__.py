"""Devices that run kernels: what a launch costs, and the kernels beside those that a person would write by hand."""
