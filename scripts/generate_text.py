"""Continue a text with a trained language model."""

from argparse import Namespace

from seqnets import cli
from seqnets.decoding import Sampling
from seqnets.jobs.text import generate_text, load_text_run


def main(arguments: Namespace) -> int:
    sampling = Sampling(arguments.temperature, arguments.top_k, arguments.top_p)
    run = load_text_run(arguments.run)
    written = generate_text(run, arguments.prompt, arguments.tokens, sampling, arguments.seed)
    print(arguments.prompt + written)
    return 0


if __name__ == "__main__":
    parser = cli.Parser(description=__doc__)
    parser.add_argument("run", metavar="RUN_DIR", help="a run of train_text.py")
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="what to go on from")
    parser.add_argument("--tokens", type=int, default=500, metavar="N", help="default 500")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="0 always takes the likeliest (default 1)"
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="choose among the K likeliest only")
    parser.add_argument(
        "--top-p", type=float, metavar="P", help="choose among the likeliest that hold P together"
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed, the same text")
    cli.run_script(parser, main)
