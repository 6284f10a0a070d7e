"""From a folder, archive or file of DICOM to one volume."""
