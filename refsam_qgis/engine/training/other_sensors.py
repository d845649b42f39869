"""Episodes whose references and target are of different sensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .episodes import EpisodeConfig, Episodes
from .scenes import CLASSES
from .sources import STYLE_CLASSES, Place, generated_place

STYLED = tuple(sorted(STYLE_CLASSES))
"""Generated classes that no real image can hold, in an order that draws can be repeated in."""


class OtherSensorEpisodes(Episodes):
    """By turns a generated class is sought in a real place, and a real class in a generated one.

    What a place does not label may be there all the same. So a class is asked for only where both know its name, or
    where no other place can have it.
    """

    def __init__(
        self, config: EpisodeConfig, real: Sequence[Place], alone: Sequence[str] = STYLED, stream: int = 2
    ) -> None:
        """Set what is drawn from.

        Args:
            config: Sizes, and how many targets are drawn without regard to the class.
            real: Places of real images, one at least.
            alone: Generated classes that none of them holds, labelled or not.
            stream: As in `Episodes`.
        """
        super().__init__(config, real, stream=stream)
        self._alone = list(alone)

    def places(self, rng: np.random.Generator, index: int, slot: int) -> tuple[Place, Place, str]:
        """As in `Episodes`."""
        real = self._real[int(rng.integers(len(self._real)))]
        generated = generated_place(rng, f"generated/{index}/{slot}", CLASSES[1:])
        known = [name for name in real.class_names() if name in CLASSES]
        if known and (index * self._config.batch + slot) % 2:
            return generated, real, known[int(rng.integers(len(known)))]
        asked = [*self._alone, *known]
        return real, generated, asked[int(rng.integers(len(asked)))]
