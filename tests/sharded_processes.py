"""Two gloo processes that train one distiller, whole and sharded.

Run by ``test_fsdp_strategy.py`` and ``test_deepspeed_strategy.py``:
``python sharded_processes.py FOLDER RANK RUNS`` leaves checkpoints in
``FOLDER/<run>`` and ``FOLDER/<run>_<rank>.pt``.
"""

import os
import subprocess
import sys
from pathlib import Path

import tiny_recipes
import torch
import torch.distributed as dist
from generated_data import write_class_folders
from mmengine.config import Config

from mmdiffkd.utils.command_line import build_runner

STRATEGIES = Path(__file__).resolve().parents[1] / 'configs/_base_/strategies'
WORLD = 2


def recipe(folder: Path, run: str, **changes) -> Config:
    config = tiny_recipes.recipe(
        folder, tiny_recipes.distiller(), **tiny_recipes.DISTILL_LINES
    )
    # What is drawn for augmentation would not come back on resume.
    pipeline = config.train_dataloader.dataset.pipeline
    pipeline[1:3] = [dict(type='CenterCrop', crop_size=tiny_recipes.SIZE)]
    config.launcher = 'pytorch'
    config.work_dir = str(folder / run)
    config.experiment_name = run
    config.merge_from_dict(changes)
    return config


def resumed(folder: Path, run: str) -> dict:
    return dict(resume=True, load_from=str(folder / run / 'epoch_1.pth'))


def fsdp_runs(folder: Path) -> tuple[Config, ...]:
    clipped = {'optim_wrapper.clip_grad': dict(max_norm=0.25)}

    def sharded(run: str, units=(), **changes) -> Config:
        strategy = Config.fromfile(STRATEGIES / 'fsdp.py')
        strategy.strategy.units = units
        return recipe(folder, run, **strategy, **clipped, **changes)

    return (
        recipe(folder, 'whole', **clipped),
        sharded('sharded'),
        sharded('blocks', units=['BasicBlock']),
        sharded('resumed', **resumed(folder, 'sharded')),
    )


def zero(folder: Path, run: str, **changes) -> Config:
    return recipe(
        folder,
        run,
        **Config.fromfile(STRATEGIES / 'deepspeed.py'),
        **{'optim_wrapper.type': 'DeepSpeedOptimWrapper'},
        **changes,
    )


def deepspeed_runs(folder: Path) -> tuple[Config, ...]:
    return recipe(folder, 'whole'), zero(folder, 'sharded')


def deepspeed_resumed(folder: Path) -> tuple[Config, ...]:
    """MMEngine makes one DeepSpeedStrategy a process."""
    settings = dict(trusted=True, **resumed(folder, 'sharded'))
    return (zero(folder, 'resumed', **settings),)


RUNS = dict(
    fsdp=fsdp_runs,
    deepspeed=deepspeed_runs,
    deepspeed_resumed=deepspeed_resumed,
)


def nbytes(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def train(config: Config) -> dict:
    """How many bytes this process holds after training."""
    runner = build_runner(config)
    runner.train()
    distiller = runner.model.module
    state = runner.optim_wrapper.optimizer.state
    norm = runner.message_hub.log_scalars.get('train/grad_norm')
    return {
        'parameters': nbytes(runner.model.parameters()),
        'momentum': nbytes(s['momentum_buffer'] for s in state.values()),
        'teacher': nbytes(distiller.teacher.network.parameters()),
        'norm': norm and float(norm.current()),
    }


def main(folder: Path, rank: int, runs: str) -> None:
    # As the launcher does; the port is not used.
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(WORLD),
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT='29500',
    )
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/store_of_{runs}',
        rank=rank,
        world_size=WORLD,
    )
    for config in RUNS[runs](folder):
        found = train(config)
        torch.save(found, f'{config.work_dir}_{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


def start(folder: Path, runs: str) -> None:
    """Run the two processes to their end."""
    data = folder / 'data'
    if not data.exists():
        write_class_folders(data, images_per_class=4, size=(20, 20))
    environment = {
        **os.environ,
        'PYTHONPATH': os.pathsep.join(
            [str(Path(__file__).parent), os.environ.get('PYTHONPATH', '')]
        ),
        'CUDA_VISIBLE_DEVICES': '',
        'DS_ACCELERATOR': 'cpu',
    }
    started = [
        subprocess.Popen(
            [sys.executable, __file__, folder, str(rank), runs],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(WORLD)
    ]
    for process in started:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors[-3000:]


def held(folder: Path, run: str) -> list[dict]:
    """What either process held after a run."""
    return [torch.load(folder / f'{run}_{rank}.pt') for rank in range(WORLD)]


if __name__ == '__main__':
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
