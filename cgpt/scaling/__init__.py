"""Scaling laws: fits of loss against compute, parameters and tokens, with intervals."""
