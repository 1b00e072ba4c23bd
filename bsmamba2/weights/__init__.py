"""Weights: the published models, the files they are read from and written to, and the model in this package."""
