"""Evaluate a trained language model on text: ``seqnets text evaluate`` as a script."""

from seqnets.launch import script

if __name__ == "__main__":
    script("text", "evaluate")
