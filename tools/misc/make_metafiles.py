"""Write the metafiles under configs/, and model-index.yml, which MIM reads.

    python tools/misc/make_metafiles.py

They restate the configs. What a config does not say (the paper, published
figures, where a teacher's weights come from) is in
configs/published_figures.yml.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config
from mmengine.fileio import dump, load
from mmengine.registry import MODELS, DefaultScope

import mmdiffkd  # noqa: F401  MMEngine finds configs of other packages by it.

ROOT = Path(__file__).resolve().parents[2]
HEADER = """\
# Made by tools/misc/make_metafiles.py. Change the configs or
# configs/published_figures.yml, and run it again.
"""
#: What a config's last word says of its data.
DATA = {
    'in1k': 'ImageNet-1k',
    'cifar100': 'CIFAR-100',
    'coco': 'COCO',
    'cityscapes-512x1024': 'Cityscapes',
    'ade20k-512x512': 'ADE20K',
    'digit-scenes': 'Digit scenes',
    'digit-scenes-det': 'Digit scenes, detection',
    'digit-scenes-seg': 'Digit scenes, segmentation',
}


def parameters(cfg: Config) -> int:
    """The number of parameters of a plain network."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    return sum(parameter.numel() for parameter in model.parameters())


def student(path: Path) -> str:
    """The config of the student alone: the recipe at the end of the bases."""
    base = re.search(r"_base_ = [\[(]?\s*'(.+?)'", path.read_text())[1]
    if '::' in base:
        return base
    base = (path.parent / base).resolve()
    if base.parent.name == 'baseline':
        return base.relative_to(ROOT).as_posix()
    return student(base)


def teachers(cfg: Config) -> list[dict]:
    """The teachers of a distiller, as its config has them."""
    several = cfg.model.get('teachers')
    return [*several.values()] if several else [cfg.model.teacher]


def config_of(teacher: dict) -> str:
    """The config of a teacher, as a path if it is one of ours."""
    package, _, name = teacher.config.partition('::')
    name = name.removesuffix('.py') + '.py'
    return f'configs/{name}' if package == 'mmdiffkd' else f'{package}::{name}'


def describe(path: Path, cfg: Config, facts: dict, count: Callable) -> dict:
    """The metadata of one model."""
    metadata = {'Training Data': DATA[path.stem.rpartition('_')[2]]}
    if 'max_iters' in cfg.train_cfg:
        metadata['Iterations'] = cfg.train_cfg.max_iters
    else:
        metadata['Epochs'] = cfg.train_cfg.max_epochs
    metadata['Batch Size'] = cfg.auto_scale_lr.base_batch_size
    published = figures(path.stem, facts)
    if path.parent.name == 'baseline':
        metadata['Parameters'] = count(cfg)
    else:
        described = [describe_teacher(t, facts) for t in teachers(cfg)]
        metadata['Student'] = {'Config': student(path)}
        # A list of several, the one itself otherwise.
        metadata['Teacher'] = described if described[1:] else described[0]
        names = {
            'Student': student(path),
            'Teacher': described[0]['Config'],
        }
        published = published and {
            **{role: figures(name, facts) for role, name in names.items()},
            'Distilled': published,
        }
    if published:
        metadata['Published'] = published
    return metadata


def describe_teacher(teacher: dict, facts: dict) -> dict:
    """The metadata of one of a model's teachers."""
    name, checkpoint = config_of(teacher), teacher.checkpoint
    weights = {'Weights': checkpoint} if '://' in checkpoint else {}
    return {'Config': name, **weights, **facts['Teachers'].get(name, {})}


def figures(config: str, facts: dict) -> dict:
    """What a source reports for a config; empty if there is none."""
    if config.startswith('configs/'):
        config = Path(config).stem
    for source, reported in facts['Published'].items():
        if config in reported:
            return {'Source': source, **reported[config]}
    return {}


def metafiles(
    read: Callable[[Path], Config] = Config.fromfile,
    count: Callable[[Config], int] = parameters,
) -> dict[Path, dict]:
    """The content of all files.

    Args:
        read (Callable): Reads a config. Defaults to ``Config.fromfile``.
        count (Callable): Counts the parameters of a config's network.
            Defaults to :func:`parameters`, which builds it.

    Returns:
        dict[Path, dict]: Path to content; ``model-index.yml`` is the last.
    """
    facts = load(ROOT / 'configs/published_figures.yml')
    files = {}
    for folder in sorted((ROOT / 'configs').glob('[!_]*/')):
        collections, models = {}, []
        for path in sorted(folder.glob('*.py')):
            if path.read_text().startswith('# The old name of this config'):
                continue
            method = path.stem.partition('_')[0]
            if folder.name == 'baseline':
                method = 'baseline'
            # A method of one's own has no paper, and need not have a README.
            collection = facts['Collections'].get(method, {'Name': method})
            readme = f'configs/{folder.name}/README.md'
            collections[method] = {
                'Name': collection['Name'],
                **({'README': readme} if (ROOT / readme).is_file() else {}),
                **collection,
            }
            models.append(
                {
                    'Name': path.stem,
                    'In Collection': collection['Name'],
                    'Config': path.relative_to(ROOT).as_posix(),
                    'Metadata': describe(path, read(path), facts, count),
                }
            )
        files[folder / 'metafile.yml'] = {
            'Collections': list(collections.values()),
            'Models': models,
        }
    names = [path.relative_to(ROOT).as_posix() for path in files]
    return files | {ROOT / 'model-index.yml': {'Import': names}}


def main() -> None:
    argparse.ArgumentParser(
        description='Write the metafiles under configs/, and model-index.yml, '
        'out of the configs and configs/published_figures.yml.'
    ).parse_args()
    for path, content in metafiles().items():
        text = dump(content, file_format='yml', sort_keys=False, width=1000)
        path.write_text(HEADER + text)


if __name__ == '__main__':
    main()
