"""What TensorFlow leaves in the temporary folder."""

import contextlib
import os
import sys


def remove_autograph_files() -> None:
    """AutoGraph's sources, which TensorFlow removes where Python ends by itself, and their bytecode, which it
    leaves even then."""
    for name, module in list(sys.modules.items()):
        if name.startswith("__autograph_generated_file"):
            for path in (module.__file__, module.__cached__):
                with contextlib.suppress(OSError):
                    os.remove(str(path))
            with contextlib.suppress(OSError):  # of others, too
                os.rmdir(os.path.dirname(str(module.__cached__)))
