"""Upscale one file and say what was done.

python examples/upscale_file.py brain.nii.gz sharp.nii.gz
"""

from __future__ import annotations

import sys

import medsr


def main(scan: str, output: str) -> int:
    """Upscale ``scan`` to ``output``; return medsr's exit code."""
    try:
        result = medsr.upscale(scan, output, overwrite=True)
    except medsr.MedsrError as error:
        print(f"refused: {error}", file=sys.stderr)
        return error.exit_code
    report = result.report
    print("model  ", report["model"]["name"])
    print("spacing", report["input"]["spacing_mm"], "->", report["output"]["spacing_mm"])
    print("seconds", report["seconds"]["total"])
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
