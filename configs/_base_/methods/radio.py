# The last map of the student's backbone against a foundation model's patches.
# The weight is not tuned. A config adds the tap in its teacher.
entry = dict(
    student_at='backbone[-1]',
    neck=dict(type='ProjectionNeck'),
    loss=dict(type='RADIOLoss'),
)
