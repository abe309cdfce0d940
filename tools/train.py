"""Train a model: a distiller, or a plain one.

python tools/train.py CONFIG [--work-dir DIR] [--amp] [--resume [CHECKPOINT]]
"""

import argparse

from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint

from mmdiffkd.utils import check_weight_files
from mmdiffkd.utils.command_line import (
    add_run_arguments,
    build_runner,
    complete_dataloaders,
    end_workers,
    leave_processes,
    read_run_config,
)
from mmdiffkd.utils.data_root import check_data_root
from mmdiffkd.utils.freed_memory import keep_freed_memory


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a model.')
    parser.add_argument('config', help='a path, or package::name')
    add_run_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue from this checkpoint, or, without a value, from the '
        'last one in the work directory',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate from auto_scale_lr.base_batch_size to '
        'the batch size of all processes together',
    )
    parser.add_argument(
        '--no-validate',
        action='store_true',
        help='do not evaluate during training',
    )
    parser.add_argument(
        '--no-persistent-workers',
        action='store_true',
        help='start the workers of data loaders anew every epoch',
    )
    return parser.parse_args()


def merge_args(cfg: Config, args: argparse.Namespace) -> None:
    complete_dataloaders(cfg, args)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume == 'auto':
        # A run that was killed before its first checkpoint starts again as
        # its config says, `load_from` included.
        nothing = find_latest_checkpoint(cfg.work_dir) is None
        if not (nothing and cfg.get('load_from')):
            cfg.update(resume=True, load_from=None)
    elif args.resume is not None:
        cfg.update(resume=True, load_from=args.resume)
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise KeyError(
                '--auto-scale-lr needs auto_scale_lr.base_batch_size in '
                f'{args.config}: the batch size, over all GPUs, that '
                'optim_wrapper.optimizer.lr was chosen for'
            )
        cfg.auto_scale_lr.enable = True


def main() -> None:
    args = parse_args()
    cfg = read_run_config(args)
    merge_args(cfg, args)
    check_weight_files(cfg)
    check_data_root(cfg, ('train_dataloader', 'val_dataloader'))
    runner = build_runner(cfg)
    runner.train()
    end_workers(runner)
    del runner
    leave_processes()


if __name__ == '__main__':
    keep_freed_memory()
    main()
