"""What a block or graph really does: look-ahead, latency, framing, receptive field."""
