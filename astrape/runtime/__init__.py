"""Running graphs: over files, and against the clock."""
