"""What runs graphs: over files, against the clock."""
