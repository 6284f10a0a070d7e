"""The network over a volume: blocks, streaming, backends, memory and speed."""
