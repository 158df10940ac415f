"""The request log: what stands in it, that it is bounded, and that no answer depends on it."""

import json
import os
import threading
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc

from serving.engine import loaded_model
from serving.engine.settings import LogSettings, ModelSettings, Sample
from serving.server import log_files, request_log
from tests.serving import served

SECRET = "Anna Müller, 1970: [MASK]!"


def logs(prefix):
    """The messages, as TensorFlow's own reader finds them."""
    records = tf.data.TFRecordDataset(log_files.found(str(prefix))).as_numpy_iterator()
    return [prediction_log_pb2.PredictionLog.FromString(record) for record in records]


def ask_rest(running, text, **more):
    body = json.dumps({"inputs": {"text": text}, **more}).encode()
    with urllib.request.urlopen(f"{running.rest}/v1/models/toy:predict", body, timeout=20) as answer:
        return json.load(answer)["outputs"]


def ask_grpc(running, text):
    request = predict_pb2.PredictRequest(model_spec={"name": "toy", "signature_name": "single"})
    request.inputs["text"].CopyFrom(tf.make_tensor_proto(text))
    with grpc.insecure_channel(running.grpc) as channel:
        return prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=20)


def metrics(running):
    with urllib.request.urlopen(f"{running.rest}/monitoring/prometheus/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    start = 'bert_serving_request_log_entries_total{model_name="toy",outcome="'
    found = (line.removeprefix(start).split('"} ') for line in lines if line.startswith(start))
    return {outcome: float(count) for outcome, count in found}


@pytest.mark.parametrize("texts", [False, True])
def test_both_protocols_are_logged_and_texts_only_where_asked_for(toy_folder, tmp_path, texts):
    prefix = tmp_path / "new" / "requests"
    own = {"log": Sample(str(prefix), 1.0)}
    with served.running(served.settings(toy_folder, model=own, log=LogSettings(texts=texts))) as running:
        ask_rest(running, [SECRET, "b"], signature_name="serving_default")
        ask_grpc(running, [SECRET])
        with pytest.raises(urllib.error.HTTPError):
            ask_rest(running, [SECRET], signature_name="none")  # what is not answered is not logged
    first, second = logs(prefix)
    for message, rows, name in ((first, 2, "serving_default"), (second, 1, "single")):
        for spec in (message.log_metadata.model_spec, message.predict_log.request.model_spec):
            assert (spec.name, spec.version.value, spec.signature_name) == ("toy", 2, name)
        assert message.log_metadata.sampling_config.sampling_rate == 1.0
        assert message.log_metadata.timestamp_secs > 1_700_000_000
        asked = tf.make_ndarray(message.predict_log.request.inputs["text"])
        assert asked.shape == (rows,)
        assert asked[0].decode() == (SECRET if texts else "xxxx xxxxxx. 0000. [MASK].")
        assert not message.predict_log.response.outputs
    (file,) = log_files.found(str(prefix))
    assert os.stat(file).st_mode & 0o077 == 0
    if not texts:
        with open(file, "rb") as handle:
            assert "Müller".encode() not in handle.read()


def test_nothing_is_logged_by_default(toy_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with served.running(served.settings(toy_folder)) as running:
        ask_rest(running, ["a"])
        assert metrics(running) == {}
    assert not list(tmp_path.iterdir())


def test_a_full_disk_fails_no_answer(toy_folder, tmp_path, monkeypatch):
    def full(self, size):
        raise OSError("no space left on the device")

    monkeypatch.setattr(log_files.LogFiles, "_begin", full)
    log = LogSettings(Sample(str(tmp_path / "log"), 1.0))
    with served.running(served.settings(toy_folder, log=log)) as running:
        for _ in range(3):
            assert ask_rest(running, ["abc"])["length"] == [3.0]
        for _ in range(100):
            if metrics(running) == {"failed": 3}:
                break
        assert metrics(running) == {"failed": 3}
        (told,) = (line for line in running.lines if "request log" in line)
    assert told == "the request log is not written: no space left on the device"


def test_a_log_serves_as_warm_up_requests(toy_folder, tmp_path):
    with served.running(served.settings(toy_folder, log=LogSettings(Sample(str(tmp_path / "log"), 1.0)))) as running:
        ask_rest(running, ["abc"])
        ask_grpc(running, ["abc"])
    (file,) = log_files.found(str(tmp_path / "log"))
    folder = served.save(tmp_path, 7)
    (folder / "assets.extra").mkdir()
    os.rename(file, folder / loaded_model.WARMUP_REQUESTS)
    assert loaded_model.LoadedModel("toy", 7, folder).warm_up(folder) == 2


class Signature:
    name = "single"

    class model:
        name, version = "toy", 3


TEXT = {"text": np.array([b"abc"], object)}
MODELS = (ModelSettings("toy", "x"),)


def outcomes(settings, offered, monkeypatch, blocked=False):
    """Counts of what became of so many entries."""
    counts = {}
    go_on = threading.Event()
    if blocked:
        monkeypatch.setattr(log_files.LogFiles, "write", lambda self, record: go_on.wait(20))

    def count(model, outcome):
        counts[outcome] = counts.get(outcome, 0) + 1

    log = request_log.RequestLog(settings, MODELS, count=count)
    for inputs in offered:
        log.offer(Signature, inputs, ())
    go_on.set()
    log.close()
    return counts


def test_what_is_too_much_is_dropped_and_counted(tmp_path, monkeypatch):
    sample = Sample(str(tmp_path / "log"), 1.0)
    slow = LogSettings(sample, per_second=0.001)
    assert outcomes(slow, [TEXT] * 5, monkeypatch) == {"over_rate": 4, "written": 1}
    large = {"text": np.array([b"x" * (request_log.ENTRY_BYTES + 1)], object)}
    assert outcomes(LogSettings(sample), [large], monkeypatch) == {"too_large": 1}
    found = outcomes(LogSettings(sample, per_second=1e6), [TEXT] * 200, monkeypatch, blocked=True)
    assert found["behind"] >= 100
    assert sum(found.values()) == 200


def test_a_share_is_drawn(tmp_path, monkeypatch):
    drawn = iter([0.4, 0.6, 0.5])
    monkeypatch.setattr(request_log.random, "random", lambda: next(drawn))
    settings = LogSettings(Sample(str(tmp_path / "log"), 0.5))
    assert outcomes(settings, [TEXT] * 3, monkeypatch) == {"written": 1}


def test_files_are_bounded_together(tmp_path):
    prefix = str(tmp_path / "log")
    (tmp_path / "log-mine.tfrecord").write_bytes(b"x" * 1000)
    before = log_files.LogFiles(prefix, 1000, 5)  # of a server that ran before
    before.write(b"y" * 100)
    before.close()
    files = log_files.LogFiles(prefix, 1000, 5)
    for _ in range(50):
        files.write(b"x" * 84)  # 100 with its frame
        assert sum(map(os.path.getsize, log_files.found(prefix))) <= 1000
    files.close()
    assert len(log_files.found(prefix)) == 5
    assert (tmp_path / "log-mine.tfrecord").exists()  # none of its files


def test_half_a_record_is_taken_back(tmp_path, monkeypatch):
    files = log_files.LogFiles(str(tmp_path / "log"), 1000, 2)
    files.write(b"whole")
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda handle, data: write(handle, data[:7]))
        with pytest.raises(OSError, match="no space left"):
            files.write(b"torn")
    files.write(b"next")
    files.close()
    records = tf.data.TFRecordDataset(log_files.found(str(tmp_path / "log"))).as_numpy_iterator()
    assert list(records) == [b"whole", b"next"]
