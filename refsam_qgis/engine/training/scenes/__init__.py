"""Generated aerial and satellite scenes with exact labels, for pre-training and few-shot episodes."""

from __future__ import annotations

from .classes import CLASS_ID, CLASSES
from .render import Scene, render_scene
from .style import SceneStyle, sample_style

__all__ = ["CLASSES", "CLASS_ID", "Scene", "SceneStyle", "render_scene", "sample_style"]
