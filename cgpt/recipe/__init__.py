"""How models are trained and decoded: FLOPs, parametrization, learning rates, settings of generation."""
