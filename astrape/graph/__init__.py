"""Recipes, the compiler, schedules, sessions and reports."""

from astrape.graph.graph import Graph, compile, load
from astrape.graph.recipe import Recipe
from astrape.graph.report import Report
from astrape.graph.session import Session

__all__ = ["Graph", "Recipe", "Report", "Session", "compile", "load"]
