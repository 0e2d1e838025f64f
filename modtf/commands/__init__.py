"""The shell commands, as :mod:`modtf.cli` offers them."""
