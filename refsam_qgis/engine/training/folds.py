"""Leave a scene and a class of real images out of training, to develop or to measure with."""

from __future__ import annotations

from pathlib import Path

from ..errors import RefSAMError
from .sources import FolderPlace, read_places


def leave_out(folder: Path, scene: str, class_name: str) -> tuple[list[FolderPlace], FolderPlace]:
    """Read real places without a scene, and without a class in the others.

    Pixels of the class stay in the images that train, as background of every other class.

    Args:
        folder: As for `read_places`.
        scene: Name of a scene.
        class_name: Name of a class.

    Returns:
        The places to train on, and the scene that was left out, with all its classes.

    Raises:
        RefSAMError: With code ``input`` where the folder has no such scene or class; or as `read_places`.
    """
    places = read_places(folder)
    names = {name for place in places.values() for name in place.class_names()}
    if scene not in places or class_name not in names:
        raise RefSAMError(
            "input",
            f"'{folder}' has no scene '{scene}' or no class '{class_name}'; its scenes are "
            f"{', '.join(sorted(places))} and its classes {', '.join(sorted(names))}.",
        )
    unseen = places.pop(scene)
    training = [place.only(names - {class_name}) for place in places.values()]
    return [place for place in training if place.class_names()], unseen
