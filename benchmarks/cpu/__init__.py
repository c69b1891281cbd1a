"""The code that crossfarm generates for CPUs, beside the libraries and compilers that people use instead."""
