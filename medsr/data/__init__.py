"""Cohorts, their splits and leaks, and the patches that training sees."""
