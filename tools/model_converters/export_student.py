"""Export the plain student from a checkpoint of a run.

python tools/model_converters/export_student.py CHECKPOINT OUT [--config CFG]

Optimizer, averaged weights, necks and logs stay behind. OUT is a .pth file
that ``torch.load(..., weights_only=True)`` reads, with the names of the
classes in ``meta``, as OpenMMLab's inference wants them; or a .safetensors
file, weights alone.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils import (
    load_config,
    load_weights,
    plain_config,
    plain_state_dict,
    read_checkpoint,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Export the plain student from a checkpoint of a run.'
    )
    parser.add_argument('checkpoint', help='a path or a URL')
    parser.add_argument('out', type=Path, help='.pth or .safetensors')
    parser.add_argument(
        '--config',
        help='the plain model, or the distiller, which the weights are '
        'loaded into with strict=True before they are written',
    )
    args = parser.parse_args()
    if args.out.suffix not in ('.pth', '.safetensors'):
        parser.error(
            f'{args.out}: the file has to end in .pth or .safetensors'
        )
    return args


def verify(weights: dict[str, Tensor], config: str, source: str) -> None:
    """Load the weights into the plain model of a config."""
    network = build_from_config(plain_config(load_config(config)))
    load_weights(network, weights, source)


def main() -> None:
    args = parse_args()
    checkpoint = read_checkpoint(args.checkpoint)
    weights = plain_state_dict(checkpoint)
    # Views of one storage would be written whole, or refused.
    weights = {name: w.clone().contiguous() for name, w in weights.items()}
    if args.config is not None:
        verify(weights, args.config, args.checkpoint)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if args.out.suffix == '.pth':
        meta = checkpoint.get('meta', {})
        meta = {k: meta[k] for k in ('dataset_meta',) if k in meta}
        torch.save(dict(meta=meta, state_dict=weights), args.out)
    else:
        save_file(weights, args.out)
    megabytes = args.out.stat().st_size / 1e6
    print(f'{args.out}: {len(weights)} tensors, {megabytes:.1f} MB')


if __name__ == '__main__':
    main()
