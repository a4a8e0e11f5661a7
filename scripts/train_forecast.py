"""Train a recurrent forecaster on a file of series: ``seqnets forecast train`` as a script."""

from seqnets.cli import script

if __name__ == "__main__":
    script("forecast", "train")
