"""Derived CT and MR series, classic and enhanced."""
