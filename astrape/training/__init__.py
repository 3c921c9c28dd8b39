"""Caches, teachers, objectives and the two trainers, on the recipes that stream."""
