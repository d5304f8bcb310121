"""The comparison as one HTML file: verdicts, pictures and data card. `page.report_html` makes it."""
