"""The report of an evaluation: one HTML file with tables, plots, pictures and a viewer.

``write_report`` takes the plain data of ``results.json`` and the cases to show. What the page says
is in ``headline``, ``answers``, ``tables`` and ``regions``, what methods are compared with in
``rivals``, plots in ``figures`` and ``figures_detail``, pictures of scans in ``pictures``, the
viewer's volumes in ``viewer``; ``page`` and the templates put it together. No metric is computed
here.
"""

from __future__ import annotations

from medsr.evaluate.report.cases import Case
from medsr.evaluate.report.page import REPORT_FILE, check_report, render, write_report
from medsr.evaluate.report.pdf import write_pdf

__all__ = ["Case", "REPORT_FILE", "check_report", "render", "write_report", "write_pdf"]
