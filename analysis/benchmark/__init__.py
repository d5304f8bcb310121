"""What a benchmark came to: its figures, tables and page."""
