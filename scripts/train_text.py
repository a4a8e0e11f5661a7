"""Train a recurrent language model on text: ``seqnets text train`` as a script."""

from seqnets.launch import script

if __name__ == "__main__":
    script("text", "train")
