"""The operations of a GPT, in two forms: `native` (C and OpenBLAS, for the CPU) and `plain` (tinygrad, any device)."""
