# 0.1 x cross-entropy + 0.9 x KL divergence of the logits at temperature 4.
student = dict(head=dict(loss=dict(loss_weight=0.1)))
distill = dict(
    logits=dict(
        at='head.fc',
        loss=dict(type='KLDivergence', tau=4.0, loss_weight=0.9),
    )
)
