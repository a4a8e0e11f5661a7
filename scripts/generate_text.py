"""Continue a text with a trained language model: ``seqnets text generate`` as a script."""

from seqnets.launch import script

if __name__ == "__main__":
    script("text", "generate")
