"""Drawn faces: any number of identities with any of the eight emotions, for demonstrations and tests.

A drawn face has what a photograph lacks: the same person with another emotion, exactly.
"""

from affect_hpc.data.corpora.demo.drawing import draw_face as draw_face
from affect_hpc.data.corpora.demo.drawing import face_mask as face_mask
from affect_hpc.data.corpora.demo.drawing import render as render
from affect_hpc.data.corpora.demo.expression import Expression as Expression
from affect_hpc.data.corpora.demo.expression import sample_expression as sample_expression
from affect_hpc.data.corpora.demo.identity import Identity as Identity
from affect_hpc.data.corpora.demo.identity import sample_identity as sample_identity
