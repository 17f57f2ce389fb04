"""What can be measured on vectors with their texts: whether an embedding run broke."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recbase_hf.doctor.collision_measures import TextCollisions, text_collisions_in
from recbase_hf.doctor.groups import numbered_rows

__all__ = ["repeated_vectors"]


def repeated_vectors(vectors: np.ndarray, texts: Sequence[str]) -> TextCollisions:
    """How many distinct texts have exactly the vector of a different text.

    An encoder gives different texts different vectors, but for texts that agree up to its length limit. Many repeated
    vectors are the mark of an embedding run that broke.

    Args:
        vectors: (items, width) floating.
        texts: of the items.

    >>> repeated_vectors(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), ["go", "chess", "poker"])
    TextCollisions(num_texts=3, num_colliding=2, share=0.6666666666666666)
    """
    return text_collisions_in(numbered_rows(np.asarray(vectors)), texts)
