"""Imports TFX without the components that nothing here uses."""

import importlib.machinery
import importlib.util
import sys


def without_all_components() -> None:
    """Puts `tfx.components` there without running it, if TFX is not imported yet: it imports all fifteen components of
    TFX, and by them Kubernetes, Vertex and Keras's tuner, for which each process pays some ten seconds. What stands
    below it is imported by its full name, as ever."""
    name = "tfx.components"
    tfx = importlib.util.find_spec("tfx") if name not in sys.modules else None
    spec = tfx and importlib.machinery.PathFinder.find_spec(name, list(tfx.submodule_search_locations or ()))
    if spec:
        sys.modules[name] = importlib.util.module_from_spec(spec)
