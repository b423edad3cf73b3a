"""What operators and other hosts ask of a daemon."""
