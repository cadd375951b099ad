"""What people look at: numbers into words, charts, a page and terminal tables.

Needs manifests and jinja2 or rich, no lake: whoever has the manifests can draw the page.
"""
