# 0.9 x cross-entropy + KL divergence of the logits at temperature 4: KD in
# the released code of DiffKD.
student = dict(head=dict(loss=dict(loss_weight=0.9)))
distill = dict(
    logits=dict(at='head.fc', loss=dict(type='KLDivergence', tau=4.0))
)
