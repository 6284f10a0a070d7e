"""DICOM: reading series, writing derived ones, and what both share."""
