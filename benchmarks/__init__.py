"""astrape beside what a user would pick instead: ``python -m benchmarks``, with what ``requirements.txt`` names."""
