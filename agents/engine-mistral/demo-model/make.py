"""Makes the demo model: data, tokenizer, training, files, check. `python make.py --help` says what can be chosen."""

import argparse
import os
import platform
import time
from pathlib import Path

HERE = Path(__file__).parent


def arguments():
    parser = argparse.ArgumentParser(description="Makes the model assay-demo from nothing but this folder.")
    parser.add_argument("--seed", type=int, default=1, help="of data, tokenizer and first weights (default 1)")
    parser.add_argument("--steps", type=int, default=950, help="training steps (default 950)")
    parser.add_argument("--out", type=Path, default=HERE, help="where the files go (default: this folder)")
    parser.add_argument("--build", type=Path, default=HERE / "build",
                        help="checkpoints and partial files (default: build); a stopped run goes on from there")
    parser.add_argument("--check-only", action="store_true", help="only check the files that are there")
    return parser.parse_args()


def main():
    options = arguments()
    # Two threads, whatever the machine has, before jax and numpy are loaded: the order of sums depends on it.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "2"
    os.environ["JAX_PLATFORMS"] = "cpu"
    import evaluate
    import export
    import model
    import tokenizer as tok
    import train

    options.out.mkdir(parents=True, exist_ok=True)
    options.build.mkdir(parents=True, exist_ok=True)
    weights = None
    if not options.check_only:
        print(f"{model.parameter_count()} parameters, seed {options.seed}, {options.steps} steps, "
              f"{platform.processor() or platform.machine()}, Python {platform.python_version()}", flush=True)
        begin = time.monotonic()
        tokenizer = tok.train(options.seed)
        print(f"tokenizer: {tok.VOCAB} tokens in {time.monotonic() - begin:.0f} s", flush=True)
        encoder = tok.Encoder(tokenizer)
        checkpoint = options.build / f"seed{options.seed}-steps{options.steps}.npz"
        weights, seconds = train.train(encoder, options.seed, options.steps, checkpoint)
        held_out = train.held_out_loss(weights, encoder, options.seed)
        print(f"trained in {seconds:.0f} s; held-out loss {held_out:.4f} nats a token", flush=True)
        export.export(weights, tokenizer, options.out, options.build)
    evaluate.evaluate(options.out, weights, options.seed)


if __name__ == "__main__":
    main()
