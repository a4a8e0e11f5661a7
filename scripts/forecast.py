"""Forecast what follows each series: ``seqnets forecast predict`` as a script."""

from seqnets.cli import script

if __name__ == "__main__":
    script("forecast", "predict")
