"""The study of maximal layered neighbourhoods (docs/maximal-study.md)."""
