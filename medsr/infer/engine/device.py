"""Where a network runs and in which precision: names made into what the machine has."""

from __future__ import annotations

from typing import Any, Literal

import torch

from medsr.errors import DeviceError, UsageError

Precision = Literal["fp32", "bf16"]


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a device that is there.

    Raises:
        DeviceError: The name is none of these, or there is no such GPU.
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"device {device!r} is unknown; use auto, cpu, cuda or cuda:N") from error
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device {device} is not there ({torch.cuda.device_count()} CUDA GPUs found); use cpu"
        )
    if resolved.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {device} is not supported; use auto, cpu, cuda or cuda:N")
    return resolved


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """Turn ``auto`` into ``bf16`` where the device computes it natively, ``fp32`` elsewhere.

    Args:
        precision: ``"auto"``, ``"fp32"`` or ``"bf16"``.
        device: Where the network runs.

    Raises:
        UsageError: The precision is none of the three.
    """
    if precision == "fp32":
        return "fp32"
    if precision == "bf16":
        return "bf16"
    if precision != "auto":
        raise UsageError(f"precision {precision!r} is unknown; use auto, fp32 or bf16")
    if device.type == "cuda":
        with torch.cuda.device(device):
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if native_bf16() else "fp32"


def native_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself; others emulate it, slower than float32."""
    query = getattr(torch.cpu, "get_capabilities", None)
    capabilities: dict[str, Any] = query() if query else {}
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def device_name(device: torch.device) -> str:
    """Return the device as a report names it, a GPU with its model."""
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"
