"""python -m affect_hpc.edit IMAGE... --target happy: edit the emotion of faces in photos of your own."""

import argparse
import dataclasses
import sys
from pathlib import Path

from affect_hpc.config.available import EMOTION_JUDGES, LANDMARK_BACKENDS
from affect_hpc.config.edit import BOUND_DB, EditConfig, Inverter
from affect_hpc.config.train import Precision
from affect_hpc.core.errors import UserError

JUDGES = tuple(name for name in EMOTION_JUDGES if name != "referee")
USUAL = EditConfig()


def main(argv: list[str] | None = None) -> int:
    """Edit photos; exit code 0 when all are edited, 1 when some could not be, 2 for wrong input."""
    arguments = _parser().parse_args(argv)
    try:
        return _edit(arguments)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the photos that were finished are whole.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m affect_hpc.edit",
        description=f"{__doc__} Writes NAME_TARGET.png, the edited crop beside it, and the certificate NAME.json.",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="photos, or folders that hold some")
    parser.add_argument("--target", required=True, metavar="EMOTION", help="one or more, with commas between, or all")
    parser.add_argument("--out", type=Path, default=Path("edited"), metavar="DIR", help="default: edited")

    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default=".",
        metavar="DIR",
        help="a train_ldm run, a model of tools/import_checkpoint.py, or a store with one finished train_ldm run"
        " (default: the store here)",
    )
    group.add_argument(
        "--first-stage", default="", metavar="DIR", help="or package:NAME (default: that of the model's training)"
    )

    group = parser.add_argument_group("edit")
    group.add_argument("--gamma", type=float, default=USUAL.gamma, help=f"guidance scale (default: {USUAL.gamma:g})")
    group.add_argument(
        "--encode-gamma", type=_same_or_number, default="same", metavar="GAMMA", help="of the inversion (default: same)"
    )
    group.add_argument("--t0", type=int, default=USUAL.t0, help=f"strength: noise level (default: {USUAL.t0})")
    group.add_argument("--steps", type=int, default=USUAL.num_steps, help=f"each way (default: {USUAL.num_steps})")
    group.add_argument("--inverter", choices=Inverter.__members__, default=USUAL.inverter.name, help="default: ddim")
    group.add_argument(
        "--bound-db", type=float, default=BOUND_DB, help=f"auto: least PSNR of the round trip (default: {BOUND_DB:g})"
    )
    group.add_argument("--precision", choices=("fp32", "bf16"), default=USUAL.precision.name, help="default: fp32")
    group.add_argument(
        "--batch-size",
        type=int,
        default=8,
        help="faces edited together (default: 8); 1: the last bits of an edit hang on no other photo",
    )

    group = parser.add_argument_group("faces")
    group.add_argument("--label", default="", metavar="EMOTION", help="that all faces show now (default: ask a judge)")
    group.add_argument("--judge", choices=JUDGES, default=JUDGES[0], help=f"default: {JUDGES[0]}")
    group.add_argument("--all-faces", action="store_true", help="edit every face of a photo, not the largest alone")
    group.add_argument(
        "--landmarks", choices=("auto", *LANDMARK_BACKENDS), default="", help="default: as for the model's corpus"
    )

    group = parser.add_argument_group("pictures")
    group.add_argument(
        "--paste",
        choices=("difference", "whole"),
        default="difference",
        help="add what the edit changed to the photo (default), or put the whole crop into it",
    )
    group.add_argument("--format", choices=("png", "jpg"), default="png", help="jpg: edits of JPEGs are JPEGs too")
    group.add_argument("--key", default="", metavar="PEM", help="sign marks with your own key (P-256)")
    group.add_argument("--certificates", default="", metavar="PEM", help="those of the key")
    group.add_argument("--no-mark", action="store_true", help="do not mark the pictures as synthetic")
    return parser


def _same_or_number(text: str) -> float | str:
    return text if text == "same" else float(text)


def _edit(arguments: argparse.Namespace) -> int:
    # After the answer to --help, which needs none of it.
    from affect_hpc.photos.call import Call, Request  # noqa: PLC0415

    edit = EditConfig(
        gamma=arguments.gamma,
        encode_gamma=arguments.encode_gamma,
        t0=arguments.t0,
        num_steps=arguments.steps,
        batch_size=arguments.batch_size,
        precision=Precision[arguments.precision],
        inverter=Inverter[arguments.inverter],
        bound_db=arguments.bound_db,
    )
    names = [field.name for field in dataclasses.fields(Request) if field.name not in ("edit", "mark")]
    call = Call(Request(edit=edit, mark=not arguments.no_mark, **{name: getattr(arguments, name) for name in names}))
    return 1 if call.run() else 0


if __name__ == "__main__":
    sys.exit(main())
