# 100 epochs of SGD (strategy B1 in Table 1 of DiffKD): total batch 256,
# 0.1 x 0.1 every 30 epochs. Nesterov momentum and no decay of norms and biases
# are the released code's; its floor of 1e-5 for the rate is never reached.
optim_wrapper = dict(
    optimizer=dict(
        type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True
    ),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = dict(
    type='MultiStepLR', by_epoch=True, milestones=[30, 60, 90], gamma=0.1
)

train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()

auto_scale_lr = dict(base_batch_size=256)
