"""Kernels for CUDA beside the vendor's: products of matrices beside cuBLAS, the rest beside a copy of memory."""
