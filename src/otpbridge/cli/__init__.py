"""The command line: one file per noun, and no policy. All it does it asks of the daemon."""
