"""The latency report, its table, and pictures of it and of the graph."""

from astrape.graph.report.report import BlockRow, Report

__all__ = ["BlockRow", "Report"]
