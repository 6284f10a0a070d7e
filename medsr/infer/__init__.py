"""Inference: tile plans, the engine, the choice of a model, and a scan from end to end."""
