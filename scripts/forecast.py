"""Forecast the next values of each series: ``seqnets forecast predict`` as a script."""

from seqnets.launch import script

if __name__ == "__main__":
    script("forecast", "predict")
