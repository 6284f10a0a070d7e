"""What an evaluation finds: its rows as one tidy table, and what follows for patients.

``table`` holds the rows; ``patients`` averages them, ``intervals`` says what a handful of patients
allows one to say, ``statistics`` fixes the comparisons, ``store`` keeps all of it in a folder.
"""

from __future__ import annotations

from medsr.evaluate.results.table import CaseResult, DisturbedResult, Results

__all__ = ["CaseResult", "DisturbedResult", "Results"]
