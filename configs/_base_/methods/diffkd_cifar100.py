# The last map before pooling, with MSE, and the logits, with KL divergence at
# temperature 1; all weights 1 and, on CIFAR, no autoencoder (Sec. 4.1 and B.2
# of the paper).
distill = dict(
    feature=dict(
        at='backbone[-1]',
        neck=dict(type='DiffKDNeck'),
        loss=dict(type='MSELoss'),
    ),
    logits=dict(
        at='head.fc',
        neck=dict(type='DiffKDNeck', feature='vector'),
        loss=dict(type='KLDivergence', tau=1.0),
    ),
)
