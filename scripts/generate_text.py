"""Continue a text with a trained language model: ``seqnets text generate`` as a script."""

from seqnets.cli import script

if __name__ == "__main__":
    script("text", "generate")
