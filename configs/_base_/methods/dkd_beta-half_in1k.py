# beta is the pair's: 0.5 for ResNet-34 to ResNet-18.
distill = dict(
    logits=dict(
        at='head.fc',
        loss=dict(type='DKDLoss', tau=1.0, alpha=1.0, beta=0.5),
    )
)
