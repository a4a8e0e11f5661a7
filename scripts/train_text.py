"""Train a recurrent language model on text: ``seqnets text train`` as a script."""

from seqnets.cli import script

if __name__ == "__main__":
    script("text", "train")
