"""Benchmarks against named peers, printing ratios."""
