"""Export the plain student from a checkpoint of a run.

python tools/model_converters/export_student.py CHECKPOINT OUT [--config CFG]

Optimizer, averaged weights, necks and logs stay behind. OUT is a .pth file
that ``torch.load(..., weights_only=True)`` reads, or a .safetensors file.
With the weights go the names of the classes (``dataset_meta``) and the recipe
of the plain student (``cfg``), as OpenMMLab's inference wants them: in
``meta`` of a .pth file, in the metadata of a .safetensors file.
"""

import argparse
from pathlib import Path

import mmengine
import torch
from mmengine.config import Config
from safetensors.torch import save_file
from torch import Tensor

from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils import (
    load_config,
    load_weights,
    parse_config,
    plain_config,
    plain_recipe,
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
        help='the recipe of the plain model, or of the distiller. The weights '
        'are loaded into its model with strict=True before they are written, '
        'and it goes into OUT. Without it, the recipe is that of the '
        'checkpoint, which is not run.',
    )
    args = parser.parse_args()
    if args.out.suffix not in ('.pth', '.safetensors'):
        parser.error(
            f'{args.out}: the file has to end in .pth or .safetensors'
        )
    return args


def verify(weights: dict[str, Tensor], config: Config, source: str) -> None:
    """Load the weights into the plain model of a config."""
    # Building changes a config.
    network = build_from_config(plain_config(load_config(config)))
    load_weights(network, weights, source)


def recipe_text(config: Config | str | None) -> str:
    """The text of the plain student's recipe.

    Raises:
        ValueError: If there is none, or it could not be read again.
    """
    if config is None:
        raise ValueError('the checkpoint has none. Give it by --config.')
    if isinstance(config, str):
        config = parse_config(config)
    if not isinstance(config.get('model'), dict):
        raise ValueError('the config of the checkpoint has no `model`')
    text = plain_recipe(config).pretty_text
    parse_config(text)
    return text


def main() -> None:
    args = parse_args()
    checkpoint = read_checkpoint(args.checkpoint)
    weights = plain_state_dict(checkpoint)
    # Views of one storage would be written whole, or refused.
    weights = {name: w.clone().contiguous() for name, w in weights.items()}
    meta = checkpoint.get('meta', {})
    config = meta.get('cfg')
    if args.config is not None:
        config = load_config(args.config)
        verify(weights, config, args.checkpoint)
    meta = {k: meta[k] for k in ('dataset_meta',) if k in meta}
    try:
        meta['cfg'] = recipe_text(config)
    except ValueError as error:
        print(f'{args.out} goes without a recipe: {error}')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if args.out.suffix == '.pth':
        torch.save(dict(meta=meta, state_dict=weights), args.out)
    else:
        if 'dataset_meta' in meta:
            names = mmengine.dump(meta['dataset_meta'], file_format='json')
            meta['dataset_meta'] = names
        save_file(weights, args.out, dict(meta, format='pt'))
    megabytes = args.out.stat().st_size / 1e6
    print(f'{args.out}: {len(weights)} tensors, {megabytes:.1f} MB')


if __name__ == '__main__':
    main()
