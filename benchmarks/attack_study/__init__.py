"""The study of what the papers claim of multi-label attacks: cells, measurements, tables and pictures."""
