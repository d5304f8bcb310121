"""Logs and tables that are text: CSV, TSV and JSON lines, plain or compressed."""
