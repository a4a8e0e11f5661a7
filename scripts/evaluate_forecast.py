"""Compare forecasts with the values that followed: ``seqnets forecast evaluate`` as a script."""

from seqnets.launch import script

if __name__ == "__main__":
    script("forecast", "evaluate")
