"""Whether a result, degraded again, gives its scan, and making it so."""
