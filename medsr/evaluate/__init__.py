"""Scoring: metrics in native units, interpolation baselines, runs over a cohort, result files.

Nothing is imported here, so that reading one part does not load the others: ``metrics`` and
``baselines`` need no torch, ``cohort`` runs the same path as ``medsr upscale``.
"""
