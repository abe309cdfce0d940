# The schedule of the distillation literature on CIFAR-100: 240 epochs of SGD
# with a batch of 64, 0.05 x 0.1 after epochs 150, 180 and 210. Weight decay
# applies to everything that is trained. MobileNetV2 and the ShuffleNets start
# at 0.01, which their own configs say.
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4)
)
param_scheduler = dict(
    type='MultiStepLR', by_epoch=True, milestones=[150, 180, 210], gamma=0.1
)
train_cfg = dict(by_epoch=True, max_epochs=240, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=64)
