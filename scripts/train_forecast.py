"""Train a recurrent forecaster on a file of series: ``seqnets forecast train`` as a script."""

from seqnets.launch import script

if __name__ == "__main__":
    script("forecast", "train")
