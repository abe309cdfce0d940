"""Evaluate a checkpoint: of a run, or a bare student's.

python tools/test.py CONFIG CHECKPOINT [--out FILE] [--show-dir DIR] [--tta]

CONFIG is the distiller's or the plain student's; the teacher's weights are
not read.
"""

import argparse
from copy import deepcopy

import mmengine
from mmengine.config import Config, ConfigDict
from mmengine.registry import METRICS

from mmdiffkd.safety import MissingWeightsHook
from mmdiffkd.utils import DISTILL_PREFIX
from mmdiffkd.utils.command_line import (
    add_run_arguments,
    build_runner,
    complete_dataloaders,
    leave_processes,
    package_of,
    read_run_config,
)
from mmdiffkd.utils.data_root import check_data_root
from mmdiffkd.utils.naming import type_name


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint.')
    parser.add_argument('config', help='a path, or package::name')
    parser.add_argument('checkpoint', help='a path or a URL')
    add_run_arguments(parser)
    parser.add_argument(
        '--out',
        metavar='FILE',
        help='where predictions (.pkl) or metrics (.json, .yml) are written',
    )
    parser.add_argument(
        '--out-item',
        choices=['pred', 'metrics'],
        default='pred',
        help='what --out holds. Defaults to pred.',
    )
    parser.add_argument(
        '--show', action='store_true', help='show predictions in a window'
    )
    parser.add_argument(
        '--show-dir',
        metavar='DIR',
        help='write painted predictions here (mmdet puts the folder into '
        'that of the run)',
    )
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        help='seconds that a window of --show stays. Defaults to 2.',
    )
    parser.add_argument(
        '--interval',
        type=int,
        default=1,
        help='paint every n-th sample. Defaults to 1.',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation: tta_model and tta_pipeline of the '
        'config, or else horizontal flips',
    )
    args = parser.parse_args()
    if (
        args.out is not None
        and args.out_item == 'pred'
        and not args.out.endswith(('.pkl', '.pickle'))
    ):
        parser.error(
            f'--out {args.out}: predictions go to a .pkl file; for the '
            'metrics add --out-item metrics'
        )
    return args


def paint_predictions(cfg: Config, args: argparse.Namespace) -> None:
    """Switch the visualization hook on, in its package's own words."""
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise KeyError(
            '--show and --show-dir need default_hooks.visualization in '
            f'{args.config}, for example '
            "dict(type='mmpretrain.VisualizationHook')"
        )
    name = type_name(hook.type)
    hook['enable' if name == 'VisualizationHook' else 'draw'] = True
    hook.interval = args.interval
    if args.show:
        hook.update(show=True, wait_time=args.wait_time)
    if args.show_dir is not None:
        if name == 'VisualizationHook':
            hook.out_dir = args.show_dir
        elif name == 'DetVisualizationHook':
            hook.test_out_dir = args.show_dir
        else:
            cfg.visualizer.save_dir = args.show_dir


def augment_test(cfg: Config) -> None:
    """Wrap the model and its pipeline for test-time augmentation."""
    defaults = {
        'mmpretrain': dict(type='mmpretrain.AverageClsScoreTTA'),
        'mmdet': dict(
            type='mmdet.DetTTAModel',
            tta_cfg=dict(
                nms=dict(type='nms', iou_threshold=0.5), max_per_img=100
            ),
        ),
        'mmseg': dict(type='mmseg.SegTTAModel'),
    }
    package = package_of(cfg)
    if 'tta_model' not in cfg:
        if package not in defaults:
            raise KeyError(
                f'--tta needs `tta_model` in the config, since {package!r} '
                'is none of ' + ', '.join(defaults)
            )
        cfg.tta_model = defaults[package]
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if 'tta_pipeline' not in cfg:
        *pipeline, pack = deepcopy(dataset.pipeline)
        if package == 'mmdet':
            pack.meta_keys = (
                'img_id',
                'img_path',
                'ori_shape',
                'img_shape',
                'scale_factor',
                'flip',
                'flip_direction',
            )
        flip = f'{package}.RandomFlip' if package in defaults else 'RandomFlip'
        flips = [dict(type=flip, prob=prob) for prob in (1.0, 0.0)]
        cfg.tta_pipeline = [
            *pipeline,
            dict(type='TestTimeAug', transforms=[flips, [pack]]),
        ]
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def merge_args(cfg: Config, args: argparse.Namespace) -> None:
    complete_dataloaders(cfg, args)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show or args.show_dir is not None:
        paint_predictions(cfg, args)
    if args.tta:
        augment_test(cfg)


def main() -> None:
    args = parse_args()
    cfg = read_run_config(args)
    merge_args(cfg, args)
    check_data_root(cfg, ('test_dataloader',))
    runner = build_runner(cfg)
    runner.register_hook(
        MissingWeightsHook(ignored=DISTILL_PREFIX), priority='LOWEST'
    )
    if args.out is not None and args.out_item == 'pred':
        # mmdet's own packs masks, which would fill the disk otherwise.
        kind = (
            'mmdet.DumpDetResults'
            if package_of(cfg) == 'mmdet'
            else 'DumpResults'
        )
        runner.test_evaluator.metrics.append(
            METRICS.build(dict(type=kind, out_file_path=args.out))
        )
    metrics = runner.test()
    if args.out is not None and args.out_item == 'metrics':
        mmengine.dump(metrics, args.out)
    leave_processes()


if __name__ == '__main__':
    main()
