"""The speaker encoder that ships: distilled from Resemblyzer onto a small causal graph, ``astrape-speaker``."""
