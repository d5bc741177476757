"""Turn a checkpoint of the CompVis code (Lightning) into a folder that launches take as use.ldm and use.first_stage.

Nothing in the checkpoint is run, and Lightning need not be installed. Every tensor is used or known as an extra.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from affect_hpc.core.errors import UserError
from affect_hpc.models import pretrained
from affect_hpc.models.pretrained import Weights


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python tools/import_checkpoint.py", description=__doc__)
    parser.add_argument("checkpoint", metavar="CKPT", type=Path, help="file that Lightning has written")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to make")
    parser.add_argument(
        "--config",
        metavar="CONFIG.json",
        type=Path,
        required=True,
        help="sizes of the networks in the original's terms",
    )
    parser.add_argument(
        "--weights", choices=[kind.name for kind in Weights], default="ema", help="of the U-Net (default: ema)"
    )
    arguments = parser.parse_args(argv)
    try:
        model = pretrained.read(arguments.checkpoint, arguments.config)
        model.write(arguments.out, Weights[arguments.weights])
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{model.used} tensors used, {model.extras} extras left; {arguments.weights} weights in {arguments.out}/unet")
    print(f"launch with use.first_stage={arguments.out.absolute()} use.ldm={arguments.out.absolute()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
