"""Benchmarks: programs that compare side by side and save what they measured as JSON.

One file each: it runs, and it renders its result as the table of its page in ``docs/benchmarks``.
"""
