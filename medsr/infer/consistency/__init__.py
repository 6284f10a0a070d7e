"""Whether a result, degraded again, gives its scan, and making it so."""

from medsr._aliases import moved_names

__getattr__ = moved_names(__name__)
