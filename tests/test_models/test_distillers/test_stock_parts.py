"""Parts of stock recipes that reach into the model, under a distiller."""

import copy

import pytest
import tiny_detectors
import tiny_recipes
import tiny_segmenters
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_checkpoint
from tiny_recipes import make_runner, train

PYRAMID = dict(
    fpn=dict(
        at='neck[:]',
        neck=dict(type='DiffKDNeck', num_inference_steps=1),
        loss=dict(type='MSELoss'),
    )
)


def recipe(tmp_path, model, **changes):
    """A recipe for a detector, or for one that distils the pyramid."""
    if isinstance(model, str):
        model = tiny_detectors.distiller(model, PYRAMID)
    return tiny_recipes.with_distill_lines(
        tiny_detectors.recipe(tmp_path, model, **changes)
    )


def logged(runner, name):
    history = runner.message_hub.log_scalars
    return history[f'train/{name}'].data[0]


@pytest.mark.slow
def test_yolox_switches_its_mode(tmp_path):
    """Mosaic off, L1 loss on, in the student's head alone."""
    mixed = dict(
        type='MultiImageMixDataset',
        dataset=tiny_detectors.dataset(tmp_path / 'coco', tiny_detectors.LOAD),
        pipeline=[
            dict(type='Mosaic', img_scale=(32, 32)),
            dict(type='Resize', scale=(64, 64), keep_ratio=False),
            *tiny_detectors.PACK,
        ],
    )
    config = recipe(
        tmp_path,
        'yolox',
        custom_hooks=[
            dict(
                type='YOLOXModeSwitchHook',
                num_last_epochs=0,
                skip_type_keys=('Mosaic',),
            ),
            dict(type='SyncNormHook'),
            dict(
                type='EMAHook',
                ema_type='ExpMomentumEMA',
                momentum=0.0001,
                update_buffers=True,
            ),
        ],
        train_dataloader=dict(dataset={'_delete_': True, **mixed}),
    )
    runner = train(config)
    assert runner.model.student.bbox_head.use_l1
    assert not runner.model.teacher.network.bbox_head.use_l1
    assert runner.train_dataloader.dataset._skip_type_keys == ('Mosaic',)
    assert len(runner.message_hub.log_scalars['train/loss_l1'].data[0]) == 2


def test_rtmdet_switches_its_pipeline(tmp_path):
    sizes = []
    last = [
        *tiny_detectors.LOAD,
        dict(type='Resize', scale=(96, 96), keep_ratio=False),
        *tiny_detectors.PACK,
    ]
    hook = dict(
        type='PipelineSwitchHook', switch_epoch=1, switch_pipeline=last
    )
    runner = make_runner(recipe(tmp_path, 'rtmdet', custom_hooks=[hook]))
    runner.model.student.backbone.register_forward_pre_hook(
        lambda module, args: (
            sizes.append(args[0].shape[-1]) if module.training else None
        )
    )
    runner.train()
    assert sizes == [64, 64, 96, 96]


def test_toods_loss_knows_the_epoch(tmp_path):
    model = tiny_detectors.distiller('tood', PYRAMID)
    # The first loss for an epoch, the second for the other.
    model['student']['train_cfg']['initial_epoch'] = 1
    runner = train(recipe(tmp_path, model))
    assert runner.model.student.bbox_head.epoch == 1
    assert not hasattr(runner.model.teacher.network.bbox_head, 'epoch')


def test_hook_that_sets_the_epoch_reaches_the_student(tmp_path):
    epochs = []
    hook = dict(type='SetEpochInfoHook')
    runner = make_runner(recipe(tmp_path, 'retinanet', custom_hooks=[hook]))
    runner.model.student.set_epoch = epochs.append
    runner.train()
    assert epochs == [0, 1]


def test_pictures_of_predictions(tmp_path):
    hook = dict(type='DetVisualizationHook', draw=True, interval=1)
    runner = train(
        recipe(
            tmp_path,
            'retinanet',
            epochs=1,
            default_hooks=dict(visualization=hook),
        )
    )
    folder = tmp_path / 'work' / runner.timestamp / 'vis_data' / 'vis_image'
    assert list(folder.glob('val_img_*.png'))


@pytest.mark.slow
def test_sizes_that_change_from_step_to_step(tmp_path):
    model = tiny_detectors.distiller('yolox', PYRAMID)
    model['student']['data_preprocessor']['batch_augments'] = [
        dict(
            type='BatchSyncRandomResize',
            random_size_range=(64, 160),
            size_divisor=32,
            interval=1,
        )
    ]
    runner = make_runner(recipe(tmp_path, model))
    sizes = [], []
    networks = runner.model.student, runner.model.teacher.network
    for network, store in zip(networks, sizes):
        network.backbone.register_forward_pre_hook(
            lambda module, args, store=store: (
                store.append(args[0].shape[2:])
                if runner.model.training
                else None
            )
        )
    runner.train()
    assert sizes[0] == sizes[1] and len(set(sizes[0])) > 1


@pytest.mark.slow
def test_images_of_several_scales(tmp_path):
    entries = {
        **PYRAMID,
        'boxes': dict(
            at='roi_head.bbox_head.fc_reg', loss=dict(type='SmoothL1Loss')
        ),
        'focus': dict(at='neck[:]', loss=dict(type='FGDLoss')),
    }
    scales = dict(
        type='RandomChoiceResize',
        scales=[(64, 64), (96, 64), (64, 128)],
        keep_ratio=False,
    )
    pipeline = [*tiny_detectors.LOAD, scales, *tiny_detectors.PACK]
    config = recipe(
        tmp_path,
        tiny_detectors.distiller('faster', entries),
        train_dataloader=dict(dataset=dict(pipeline=pipeline)),
        val_dataloader=None,
        val_evaluator=None,
        val_cfg=None,
    )
    runner = train(config)
    for name in entries:
        values = logged(runner, f'distill.{name}.loss_kd')
        assert len(values) == 4
        assert all(0 < value < float('inf') for value in values)


def test_augmentation_at_test_time(tmp_path):
    runner = train(recipe(tmp_path, 'retinanet', epochs=1))
    config = runner.cfg
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(
            type='TestTimeAug',
            transforms=[
                [
                    dict(type='Resize', scale=(s, s), keep_ratio=True)
                    for s in (64, 96)
                ],
                [dict(type='RandomFlip', prob=p) for p in (0.0, 1.0)],
                [dict(type='LoadAnnotations', with_bbox=True)],
                tiny_detectors.PACK,
            ],
        ),
    ]
    expected = {
        k: v.clone() for k, v in runner.model.student.state_dict().items()
    }
    with DefaultScope.overwrite_default_scope('mmdet'):
        tta = MODELS.build(
            dict(
                type='DetTTAModel',
                tta_cfg=dict(
                    nms=dict(type='nms', iou_threshold=0.5), max_per_img=10
                ),
                module=tiny_detectors.distiller('retinanet', PYRAMID),
            )
        )
        loader = copy.deepcopy(config.val_dataloader)
        loader.dataset.pipeline = pipeline
        data = Runner.build_dataloader(loader)
        # As a runner's test does it.
        load_checkpoint(
            tta.module, str(tmp_path / 'work' / 'epoch_1.pth'), 'cpu'
        )
        with torch.no_grad():
            results = tta.eval().test_step(next(iter(data)))
    assert len(results) == 2
    assert all(len(r.pred_instances) <= 10 for r in results)
    ours = tta.module.student.state_dict()
    assert all(torch.equal(ours[k], v) for k, v in expected.items())


def layer_decay():
    """A BEiT of two layers and mmseg's constructor for it."""
    student = tiny_segmenters.segmenter('fcn')
    student['backbone'] = dict(
        type='BEiT',
        img_size=(32, 32),
        patch_size=16,
        embed_dims=8,
        num_layers=2,
        num_heads=2,
        out_indices=(0, 1),
        qv_bias=True,
        init_values=0.1,
    )
    student['auxiliary_head'] = None
    student['decode_head'].update(in_channels=8, in_index=1)
    paramwise = dict(num_layers=2, decay_rate=0.5, decay_type='layer_wise_vit')
    return student, paramwise


def test_layer_decay_of_mmseg(build):
    student, paramwise = layer_decay()
    constructor = 'mmseg.LearningRateDecayOptimizerConstructor'
    optimizer = dict(type='AdamW', lr=0.1, weight_decay=0.05)
    torch.manual_seed(0)
    plain = build_optim_wrapper(
        build(student),
        dict(
            optimizer=optimizer,
            constructor=constructor,
            paramwise_cfg=dict(paramwise),
        ),
    ).optimizer.param_groups
    config = tiny_segmenters.distiller(
        'fcn',
        dict(
            maps=dict(
                at='decode_head.conv_seg',
                neck=dict(type='DiffKDNeck'),
                loss=dict(type='DISTLoss'),
            )
        ),
        student=student,
        input_size=32,
    )
    made = build_optim_wrapper(
        build(config),
        dict(
            optimizer=optimizer,
            constructor='mmdiffkd.OptimWrapperConstructor',
            paramwise_cfg=dict(student_constructor=constructor, **paramwise),
        ),
    ).optimizer.param_groups
    assert len({group['lr'] for group in plain}) > 2
    for ours, theirs in zip(made, plain):
        for key in ('lr', 'weight_decay'):
            assert ours[key] == theirs[key]
        assert len(ours['params']) == len(theirs['params'])
    assert all(group['distill'] for group in made[len(plain) :])
    assert len(made) > len(plain)
