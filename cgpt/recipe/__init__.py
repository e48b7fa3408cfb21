"""The arithmetic of training: FLOPs, parametrization, learning rates."""
