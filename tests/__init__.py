"""oneDNN is on, whatever the CPU: without it TensorFlow has no product for exports of int8."""

import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
