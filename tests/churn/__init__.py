"""Seven days of starts and stops in fast motion, and whether anything of them stays behind."""
