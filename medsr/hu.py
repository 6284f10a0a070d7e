"""Levels of CT in Hounsfield units (HU) that several parts of medsr go by."""

AIR_HU = -1024.0
"""The lowest value of most scanners: what air and padding are set to, for networks too."""

BODY_HU = -500.0
"""Between air, lung included, and tissue (Hu, Hoffman and Reinhardt 2001 find it iteratively)."""

CT_RANGE_HU = 2048.0
"""The width that counts as CT's full range: of a network's input, of PSNR and of SSIM."""
