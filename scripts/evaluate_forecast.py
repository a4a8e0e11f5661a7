"""Measure a trained forecaster on what followed: ``seqnets forecast evaluate`` as a script."""

from seqnets.cli import script

if __name__ == "__main__":
    script("forecast", "evaluate")
