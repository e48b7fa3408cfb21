"""The operations of a GPT on C kernels and OpenBLAS."""
