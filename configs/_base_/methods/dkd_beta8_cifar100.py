# beta is the pair's: 8 for ResNet-32x4 to 8x4, for all ShuffleNets and for
# ResNet-50 to MobileNetV2.
distill = dict(
    logits=dict(
        at='head.fc',
        loss=dict(type='DKDLoss', tau=4.0, alpha=1.0, beta=8.0),
        schedule=dict(warmup=20),
    )
)
