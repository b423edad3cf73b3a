"""Tests of the `fairway` command."""
