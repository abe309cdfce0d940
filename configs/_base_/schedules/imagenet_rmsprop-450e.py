# 450 epochs of RMSProp (strategy B2 in Table 1 of DiffKD): total batch 768,
# 0.048 x 0.97 every 2.4 epochs, EMA 0.9999. Warm-up and no decay of norms and
# biases are the released code's.
optim_wrapper = dict(
    optimizer=dict(
        # The released code takes TensorFlow's variant, where eps=1e-3 stands
        # under the root; 0.0316 is its root, for torch's RMSprop, which adds
        # eps outside. With timm installed, `timm.optim.RMSpropTF` and
        # eps=1e-3 is the original.
        type='RMSprop',
        lr=0.048,
        alpha=0.9,
        momentum=0.9,
        eps=0.0316,
        weight_decay=1e-5,
    ),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-6 / 0.048,
        by_epoch=True,
        end=3,
        convert_to_iter_based=True,
    ),
    # In iterations, of which an epoch has 1,281,167 // 8 // 96 = 1,668: every
    # 2.4 epochs, from the 3rd to the 450th. Converted from epochs, the period
    # would be 4003.2, which no iteration is a multiple of, and the rate would
    # never fall.
    dict(
        type='StepLR',
        by_epoch=False,
        begin=5004,
        end=750600,
        step_size=4003,
        gamma=0.97,
    ),
]
# MMEngine's momentum is 1 - decay.
custom_hooks = [dict(type='EMAHook', momentum=1e-4, update_buffers=True)]

train_cfg = dict(by_epoch=True, max_epochs=450, val_interval=1)
val_cfg = dict()
test_cfg = dict()

auto_scale_lr = dict(base_batch_size=768)
