"""The network over a volume: blocks, streaming, backends, memory and speed."""

from medsr._aliases import moved_names

__getattr__ = moved_names(__name__)
