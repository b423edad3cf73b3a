"""Tests of the benchmarks' own parts; the measurements themselves are `./run bench`."""
