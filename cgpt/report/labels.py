"""The same words for the same quantity in every table's header and on every axis; the others have their key's."""

LABELS = {
    "n_parameters": "parameters",
    "tokens": "training tokens",
    "flops": "training FLOPs",
    "validation_loss": "validation loss (nats per token)",
    "validation_bits_per_byte": "validation bits per byte",
    "seconds": "training time (s)",
    "tokens_per_s": "tokens per second",
    "peak_memory_bytes": "peak memory (GiB)",
    "energy_j": "energy (J)",
    "host_cpu": "host",
}
# What training costs, of the steps alone.
STEP_COST_LABELS = {
    "seconds": "time of the steps (s)",
    "joules": "energy of the steps (J)",
    "usd": "price of the steps (USD)",
}
