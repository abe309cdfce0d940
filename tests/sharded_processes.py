"""Two gloo processes that train one distiller, whole and sharded.

Run by ``test_fsdp_strategy.py``: ``python sharded_processes.py FOLDER RANK``
leaves checkpoints in ``FOLDER/<run>`` and ``FOLDER/<run>_<rank>.pt``.
"""

import os
import sys
from pathlib import Path

import tiny_recipes
import torch
import torch.distributed as dist
from mmengine.config import Config

from mmdiffkd.utils.command_line import build_runner

ROOT = Path(__file__).resolve().parents[1]
WORLD = 2


def recipe(folder: Path, run: str, **changes) -> Config:
    config = tiny_recipes.recipe(
        folder, tiny_recipes.distiller(), **tiny_recipes.DISTILL_LINES
    )
    # What is drawn for augmentation would not come back on resume.
    pipeline = config.train_dataloader.dataset.pipeline
    pipeline[1:3] = [dict(type='CenterCrop', crop_size=tiny_recipes.SIZE)]
    config.optim_wrapper.clip_grad = dict(max_norm=0.25)
    config.launcher = 'pytorch'
    config.work_dir = str(folder / run)
    config.experiment_name = run
    config.merge_from_dict(changes)
    return config


def sharded(folder: Path, run: str, units=(), **changes) -> Config:
    strategy = ROOT / 'configs/_base_/strategies/fsdp.py'
    config = recipe(folder, run, **Config.fromfile(strategy), **changes)
    config.strategy.units = units
    return config


def nbytes(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def train(config: Config) -> dict:
    """How many bytes this process holds after training."""
    runner = build_runner(config)
    runner.train()
    distiller = runner.model.module
    state = runner.optim_wrapper.optimizer.state
    return {
        'parameters': nbytes(runner.model.parameters()),
        'momentum': nbytes(s['momentum_buffer'] for s in state.values()),
        'teacher': nbytes(distiller.teacher.network.parameters()),
        'norm': runner.message_hub.get_scalar('train/grad_norm').current(),
    }


def main(folder: Path, rank: int) -> None:
    # As the launcher does; the port is not used.
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/store',
        rank=rank,
        world_size=WORLD,
    )
    runs = (
        recipe(folder, 'whole'),
        sharded(folder, 'sharded'),
        sharded(folder, 'blocks', units=['BasicBlock']),
        sharded(
            folder,
            'resumed',
            resume=True,
            load_from=str(folder / 'sharded/epoch_1.pth'),
        ),
    )
    for config in runs:
        found = train(config)
        torch.save(found, f'{config.work_dir}_{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


if __name__ == '__main__':
    torch.set_num_threads(1)
    Config.pretty_text = ''
    main(Path(sys.argv[1]), int(sys.argv[2]))
