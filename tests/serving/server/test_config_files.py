"""TensorFlow Serving's files and what they become."""

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from preprocessing.errors import InputError
from serving.engine import settings
from serving.server import config_files as s

MODELS = """
model_config_list {
  config {
    name: "bert"
    base_path: "/models/bert"
    model_platform: "tensorflow"
    model_version_policy { specific { versions: 4 versions: 5 } }
    version_labels { key: "stable" value: 4 }
    version_labels { key: "canary" value: 5 }
  }
  config { name: "other" base_path: "/models/other" model_version_policy { latest { num_versions: 2 } } }
  config { name: "third" base_path: "/models/third" model_version_policy { all {} } }
}
"""


@pytest.fixture
def written(tmp_path):
    def write(text):
        (tmp_path / "file.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(tmp_path / "file.txt")

    return write


def test_models(written):
    expected = (
        settings.ModelSettings("bert", "/models/bert", "specific", 1, (4, 5), (("canary", 5), ("stable", 4))),
        settings.ModelSettings("other", "/models/other", "latest", 2),
        settings.ModelSettings("third", "/models/third", "all"),
    )
    assert s.read_models(written(MODELS)) == expected
    # The same from the message that a reload brings.
    assert s.models_of(text_format.Parse(MODELS, model_server_config_pb2.ModelServerConfig())) == expected


def test_all_fields_of_a_models_config_are_known(written):
    """Every one that TensorFlow Serving's message has, filled in."""
    text = """
    model_config_list { config {
      name: "a" base_path: "x" model_type: TENSORFLOW model_version_policy { latest { num_versions: 3 } }
      logging_config {
        log_collector_config { type: "request_logger" filename_prefix: "/log/x" }
        sampling_config {
          sampling_rate: 0.1 attributes: 1
          per_task_sampling_configs { dc: "a" task_index: 1 sampling_rate: 0.5 }
        }
        custom_logging_config { type_url: "type.googleapis.com/x" value: "y" }
      }
    } }
    """
    (model,) = s.read_models(written(text))
    assert model.num_versions == 3
    assert model.log == settings.Sample("/log/x", 0.1)
    assert model.passed_over == tuple(
        f"logging_config.{name}"
        for name in ("custom_logging_config", "sampling_config.attributes", "sampling_config.per_task_sampling_configs")
    )


def test_batching(written):
    text = """
    max_batch_size { value: 64 } batch_timeout_micros { value: 2000 } num_batch_threads { value: 3 }
    max_enqueued_batches { value: 10 } thread_pool_name { value: "pool" } allowed_batch_sizes: 8 allowed_batch_sizes: 64
    pad_variable_length_inputs: true enable_large_batch_splitting { value: true }
    """
    assert s.read_batching(written(text)) == settings.BatchingSettings(64, 2000, 3, 10)
    assert s.read_batching(written("")) == settings.BatchingSettings()


def test_monitoring(written):
    assert s.read_prometheus_path(written('prometheus_config { enable: true path: "/metrics" }')) == "/metrics"
    assert s.read_prometheus_path(written("")) == "/monitoring/prometheus/metrics"


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (s.read_models, b"\xff", "must be text in UTF-8"),
        (s.read_models, "", "a model_config_list must name models"),
        (s.read_models, "custom_model_config {}", "a model_config_list must name models"),
        (s.read_models, 'model_config_list { config { name: "a b" base_path: "x" } }', "a model's name is of"),
        (s.read_models, 'model_config_list { config { name: "a" } }', "needs a base path"),
        (s.read_models, 'model_config_list { config { name: "a" base_path: "x" model_type: OTHER } }', "TENSORFLOW"),
        (s.read_models, 'model_config_list { config { model_platform: "torch" } }', '"tensorflow". Received: .torch'),
        (
            s.read_models,
            'model_config_list { config { name: "a" base_path: "x" logging_config {} } }',
            "needs a filename_prefix",
        ),
        (s.read_batching, "max_batch_size {}", "max_batch_size must be positive. Received: 0"),
        (s.read_tls, 'server_key: "x"', "needs server_key and server_cert"),
    ],
)
def test_errors_name_the_file(written, read, text, message):
    with pytest.raises(InputError, match=rf"^\S+file\.txt: .*{message}"):
        read(written(text))


@pytest.mark.parametrize("text", ["model_config_list {", "models {}", "model_config_list { config { name: 3 } }"])
def test_errors_name_file_and_line(written, text):
    with pytest.raises(InputError, match=r"file\.txt:1:\d+ : "):
        s.read_models(written(text))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: settings.ModelSettings("a/b", "x"), "a model's name"),
        (lambda: settings.ModelSettings("a", "gs://bucket/a"), "must be a local folder"),
        (lambda: settings.ModelSettings("a", "x", "specific"), "needs versions"),
        (lambda: settings.BatchingSettings(max_batch_size=0), "max_batch_size must be positive. Received: 0"),
        (lambda: settings.ServerSettings(()), "there must be a model"),
        (
            lambda: settings.ServerSettings((settings.ModelSettings("a", "x"), settings.ModelSettings("a", "y"))),
            "different names",
        ),
        (lambda: settings.ServerSettings((settings.ModelSettings("a", "x"),), port=70000), "below 65536"),
        (lambda: settings.ServerSettings((settings.ModelSettings("a", "x"),), port=-1, rest_api_port=-1), "must be on"),
        (
            lambda: settings.ServerSettings((settings.ModelSettings("a", "x"),), file_system_poll_wait_seconds=-1),
            "0 looks once",
        ),
        (lambda: settings.Sample("x", 2), "sampling_rate must be from 0 to 1. Received: 2"),
        (lambda: settings.Sample("gs://b/x", 1), "must be a local path"),
        (lambda: settings.LogSettings(total_bytes=0), "must have 100,000 bytes or more. Received: 0"),
        (lambda: settings.Limits(rows=0), "rows must be positive"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(InputError, match=message):
        make()
