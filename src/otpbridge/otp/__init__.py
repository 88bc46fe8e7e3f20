"""One-time passwords as pure functions: seeds, steps and codes in, values out. No clock, no I/O."""
