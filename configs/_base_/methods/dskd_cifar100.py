# DSKD (reconstruction). Every setting is a choice of this reconstruction; the
# loss and its weight are those published for LSH alone.
distill = dict(
    feature=dict(
        at='backbone[-1]',
        teacher_head='head.fc',
        neck=dict(type='DSKDNeck', pooled=True),
        loss=dict(type='LSHLoss', bias='zero', loss_weight=6.0),
    )
)
