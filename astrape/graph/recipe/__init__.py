"""Recipes: from YAML text to a checked recipe without nesting."""

from astrape.graph.recipe.files import shipped_recipes
from astrape.graph.recipe.recipe import Recipe

__all__ = ["Recipe", "shipped_recipes"]
