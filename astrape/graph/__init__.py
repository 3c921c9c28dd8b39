"""Recipes, the compiler, schedules, sessions and reports."""
