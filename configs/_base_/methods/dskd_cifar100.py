# DSKD (reconstruction). Every setting is a choice of this reconstruction. The
# weight is the one published for LSH with its squared error, which is left
# out: the denoised feature is longer than the one it came from, and a student
# that runs after its length never gets there.
distill = dict(
    feature=dict(
        at='backbone[-1]',
        teacher_head='head.fc',
        neck=dict(type='DSKDNeck', pooled=True),
        loss=dict(type='LSHLoss', bias='zero', with_l2=False, loss_weight=6.0),
    )
)
