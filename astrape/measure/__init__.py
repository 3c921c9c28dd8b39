"""Measurements of blocks and graphs: look-ahead, latency, framing, receptive field."""
