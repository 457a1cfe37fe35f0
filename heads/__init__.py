"""Attention heads over stored features: training, prediction, metrics."""
