"""Versions come, go and are refused while requests are answered."""

import asyncio
import json
import os
import pathlib
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request

import grpc
import pytest
import tensorflow as tf
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import model_management_pb2, prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from preprocessing.errors import InputError
from serving.engine import versions
from serving.engine.loaded_model import LoadedModel
from serving.engine.models import Models
from serving.engine.settings import ModelSettings
from serving.protocol.errors import Code, RequestError
from serving.server import config_files, embedded, http
from tests.serving import served


def version_of(running, path="toy"):
    request = urllib.request.Request(f"{running.rest}/v1/models/{path}:predict", b'{"instances": ["x"]}')
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)["predictions"][0]["version"]


def eventually(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.05)
    return found


def test_swap_without_a_failed_request(tmp_path):
    served.save(tmp_path, 1)
    with served.running(served.settings(tmp_path)) as running:
        seen, failures, stop = [], [], threading.Event()

        def ask():
            while not stop.is_set():
                try:
                    seen.append(version_of(running))
                except Exception as error:
                    failures.append(error)

        askers = [threading.Thread(target=ask) for _ in range(3)]
        for asker in askers:
            asker.start()
        try:
            served.save(tmp_path, 2)
            eventually(lambda: "toy: version 1 unloaded" in running.lines)
            many = len(seen) + 30
            eventually(lambda: len(seen) > many)
        finally:
            stop.set()
            for asker in askers:
                asker.join()
    assert failures == []
    assert {*seen} == {1, 2}
    assert seen[-1] == 2


def test_a_broken_version_is_refused_and_a_mended_one_taken(tmp_path):
    served.save(tmp_path, 1)
    with served.running(served.settings(tmp_path)) as running:
        broken = tmp_path / ".broken"
        shutil.copytree(tmp_path / "1", broken)
        whole = (broken / "saved_model.pb").read_bytes()
        (broken / "saved_model.pb").write_bytes(whole[:5000])
        broken.rename(tmp_path / "2")
        eventually(lambda: any("version 2 refused" in line for line in running.lines))
        assert version_of(running) == 1
        with urllib.request.urlopen(f"{running.rest}/v1/models/toy/versions/2") as response:
            status = json.load(response)["model_version_status"][0]
        assert status["state"] == "END"
        assert status["status"]["error_code"] == "UNKNOWN"
        assert status["status"]["error_message"]
        (tmp_path / "2" / "saved_model.pb").write_bytes(whole)
        eventually(lambda: any("version 2 loaded" in line for line in running.lines))
        assert sum("refused" in line for line in running.lines) == 1  # not tried again at every look


def test_a_half_copied_version_is_not_picked_up(tmp_path):
    source = served.save(tmp_path, 1).rename(tmp_path / ".source")
    shutil.copytree(source, tmp_path / "1")
    with served.running(served.settings(tmp_path)) as running:
        target = tmp_path / "2"
        (target / "variables").mkdir(parents=True)
        shutil.copy(source / "saved_model.pb", target)
        data = (source / "variables" / "variables.data-00000-of-00001").read_bytes()
        shutil.copy2(source / "variables" / "variables.index", target / "variables")
        with open(target / "variables" / "variables.data-00000-of-00001", "wb") as file:
            for byte in data:  # a slow copy: longer than the server's polls
                file.write(bytes([byte]))
                file.flush()
                time.sleep(1.5 / len(data))
                assert version_of(running) == 1
        eventually(lambda: any("version 2 loaded" in line for line in running.lines))
        assert not any("refused" in line for line in running.lines)


def test_warm_up_records_are_answered_before_a_swap(tmp_path):
    served.save(tmp_path, 1)

    def records(version, signature):
        log = prediction_log_pb2.PredictionLog()
        request = log.predict_log.request
        request.model_spec.signature_name = signature
        request.inputs["text"].CopyFrom(tf.make_tensor_proto(["warm", "up"]))
        path = tmp_path / f".{version}" / "assets.extra" / "tf_serving_warmup_requests"
        shutil.copytree(tmp_path / "1", tmp_path / f".{version}")
        path.parent.mkdir()
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(log.SerializeToString())
        (tmp_path / f".{version}").rename(tmp_path / str(version))

    with served.running(served.settings(tmp_path)) as running:
        records(2, "none")  # a request that the model cannot answer: it is not the model that clients expect
        eventually(lambda: any("version 2 refused" in line and "'none'" in line for line in running.lines))
        records(3, "single")
        eventually(lambda: any("version 3 loaded" in line for line in running.lines))


def test_the_last_version_goes_on_when_its_folder_goes(tmp_path):
    served.save(tmp_path, 1)
    with served.running(served.settings(tmp_path)) as running:
        (tmp_path / "1").rename(tmp_path / "away")
        time.sleep(0.5)
        assert version_of(running) == 1


def reloader(channel):
    return channel.unary_unary(
        "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
        model_management_pb2.ReloadConfigRequest.SerializeToString,
        model_management_pb2.ReloadConfigResponse.FromString,
    )


def test_reload_of_the_same_folder_spelled_otherwise(tmp_path):
    base = tmp_path / "toy"
    base.mkdir()
    served.save(base, 1)
    (tmp_path / "link").symlink_to(base)
    with served.running(served.settings(base)) as running, grpc.insecure_channel(running.grpc) as channel:
        request = model_management_pb2.ReloadConfigRequest()
        config = request.config.model_config_list.config.add(name="toy")
        for spelled in (f"{base}/", f"{base}/.", f"{base}//", f"{base}/../toy", f"{base}/../link", f"{base}/1/.."):
            config.base_path = spelled
            reloader(channel)(request)
            assert version_of(running) == 1
        config.logging_config.log_collector_config.filename_prefix = str(tmp_path / "log")
        config.logging_config.sampling_config.sampling_rate = 1.0
        reloader(channel)(request)
        loaded, passed_over = running.lines  # once: it has not moved
        assert "loaded" in loaded
        assert passed_over == "toy: logging_config is passed over: what is logged stays as the operator said"
        assert version_of(running) == 1
        assert not list(tmp_path.glob("log*"))
        config.base_path = str(tmp_path)
        with pytest.raises(grpc.RpcError, match="must be one that the server was started with"):
            reloader(channel)(request)


def test_a_configuration_file_that_spells_the_folder_otherwise_moves_nothing(tmp_path):
    fake_version(tmp_path, 1)

    async def run():
        models = fake_models(tmp_path)
        await models.refresh()
        before = models.find("m")
        await models.reload((ModelSettings("m", f"{tmp_path}/"),))
        assert models.find("m") is before

    asyncio.run(run())


def test_a_new_label_may_come_before_its_version(tmp_path):
    fake_version(tmp_path, 1)

    def labelled(**labels):
        return (ModelSettings("m", str(tmp_path), labels=tuple(labels.items())),)

    async def run():
        models = Models(labelled(stable=1), load=FakeModel, report=print, settle_seconds=0, early_labels=True)
        await models.refresh()
        await models.reload(labelled(stable=1, canary=2))
        with pytest.raises(RequestError, match="Specific"):
            models.find("m", label="canary")
        with pytest.raises(RequestError, match="needs version 2"):  # one in use does not move to what is not there
            await models.reload(labelled(stable=2))

    asyncio.run(run())


def test_looks_once(tmp_path):
    served.save(tmp_path, 1)
    with served.running(served.settings(tmp_path, file_system_poll_wait_seconds=0)) as running:
        served.save(tmp_path, 2)
        time.sleep(1.5)
        assert version_of(running) == 1
    empty = tmp_path / "empty"
    empty.mkdir()
    once = pytest.raises(InputError, match="looks once, so a version must be there from the start")
    with once, served.running(served.settings(empty, file_system_poll_wait_seconds=0)):
        pass


@pytest.mark.parametrize("name", ["a [1] *?", "x" * 200, 'it\'s "so", größe 東京 {a,b}\n%41 #$&~'], ids=range(3))
def test_any_path(tmp_path, name):
    base = tmp_path / name
    base.mkdir()
    folder = served.save(base, 1)
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.inputs["text"].CopyFrom(tf.make_tensor_proto(["warm"]))
    (folder / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(tmp_path / "warm")) as writer:
        writer.write(log.SerializeToString())
    (tmp_path / "warm").rename(folder / "assets.extra" / "tf_serving_warmup_requests")
    config = base / "models.config"
    message = model_server_config_pb2.ModelServerConfig()
    message.model_config_list.config.add(name="toy", base_path=str(base))
    config.write_text(text_format.MessageToString(message))
    models = config_files.read_models(str(config))
    followed = {"model_config_file": str(config), "model_config_file_poll_wait_seconds": 0.1}
    with served.running(served.settings(base, models=models, **followed)) as running:
        assert version_of(running) == 1
        message.model_config_list.config[0].model_version_policy.all.SetInParent()
        config.write_text(text_format.MessageToString(message))
        served.save(base, 2)
        eventually(lambda: any("version 2 loaded" in line for line in running.lines))
        assert version_of(running, "toy/versions/2") == 2
        assert not [line for line in running.lines if "loaded in" not in line]


def test_reload_replaces_the_list(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        folder.mkdir()
        served.save(folder, 1)
        served.save(folder, 2)
    models = (ModelSettings("a", str(a)), ModelSettings("b", str(b)))
    with served.running(served.settings(a, models=models)) as running, grpc.insecure_channel(running.grpc) as channel:
        reload = reloader(channel)
        request = model_management_pb2.ReloadConfigRequest()
        config = request.config.model_config_list.config.add(name="a", base_path=str(a))
        config.model_version_policy.specific.versions.append(1)
        reload(request)
        assert version_of(running, "a") == 1
        with pytest.raises(urllib.error.HTTPError, match="404"):
            version_of(running, "b")
        config.version_labels["canary"] = 7
        with pytest.raises(grpc.RpcError, match="needs version 7"):
            reload(request)
        config.version_labels["canary"] = 1
        reload(request)
        assert version_of(running, "a/labels/canary") == 1


def test_the_configuration_file_is_followed(tmp_path):
    base = tmp_path / "toy"
    base.mkdir()
    served.save(base, 1)
    served.save(base, 2)
    config = tmp_path / "models.config"
    text = 'model_config_list {{ config {{ name: "toy" base_path: "{}" model_version_policy {{ {} }} }} }}'
    config.write_text(text.format(base, "latest {}"))
    followed = {"model_config_file": str(config), "model_config_file_poll_wait_seconds": 0.1}
    with served.running(served.settings(base, **followed)) as running:
        assert version_of(running) == 2
        config.write_text("nonsense")
        eventually(lambda: any("was not taken over" in line for line in running.lines))
        config.write_text(text.format(base, "specific { versions: 1 }"))
        eventually(lambda: version_of(running) == 1)


def test_an_empty_configuration_changes_nothing(tmp_path):
    """As a file is for a moment while it is written."""
    base = tmp_path / "toy"
    base.mkdir()
    served.save(base, 1)
    config = tmp_path / "models.config"
    config.write_text("")
    followed = {"model_config_file": str(config), "model_config_file_poll_wait_seconds": 0.1}
    with served.running(served.settings(base, **followed)) as running:
        eventually(lambda: any("must name models" in line for line in running.lines))
        time.sleep(0.5)
        assert version_of(running) == 1
    assert len(running.lines) == 2  # it was loaded, and the file is reported once


def test_a_label_waits_for_its_version(tmp_path):
    base = tmp_path / "toy"
    base.mkdir()
    served.save(base, 1)
    config = tmp_path / "models.config"
    entry = f'name: "toy" base_path: "{base}" model_version_policy {{ all {{}} }}'
    config.write_text(f"model_config_list {{ config {{ {entry} }} }}")
    followed = {"model_config_file": str(config), "model_config_file_poll_wait_seconds": 0.1}
    with served.running(served.settings(base, **followed, model={"policy": "all"})) as running:
        labels = 'version_labels { key: "canary" value: 2 }'
        config.write_text(f"model_config_list {{ config {{ {entry} {labels} }} }}")
        eventually(lambda: any("needs version 2" in line for line in running.lines))
        served.save(base, 2)

        def canary():
            try:
                return version_of(running, "toy/labels/canary")
            except urllib.error.HTTPError:
                return None

        assert eventually(canary) == 2


def test_a_model_moves_without_a_gap(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    for number, folder in enumerate((here, there), 1):
        folder.mkdir()
        served.save(folder, number)

    def slowly(*arguments):
        time.sleep(0.3)
        return LoadedModel(*arguments)

    async def body():
        models = Models((ModelSettings("toy", str(here)),), load=slowly, settle_seconds=0)
        await models.refresh()
        moving = asyncio.create_task(models.reload((ModelSettings("toy", str(there)),)))
        seen = []
        while not moving.done():
            seen.append(models.find("toy").version)
            await asyncio.sleep(0.01)
        await moving
        assert seen[0] == 1
        assert seen == sorted(seen)  # always one of them, the new one to the end
        assert models.find("toy").version == 2
        with pytest.raises(RequestError, match=r"no version of toy in .* could be loaded"):
            await models.reload((ModelSettings("toy", str(tmp_path)),))
        assert models.find("toy").version == 2
        with pytest.raises(RequestError, match=r"no version of other in .* could be loaded"):
            await models.reload((ModelSettings("toy", str(there)), ModelSettings("other", str(tmp_path))))
        assert models.find("toy").version == 2
        await models.close()

    asyncio.run(body())


def test_a_server_that_is_stopped_while_it_starts_is_never_ready(tmp_path, monkeypatch):
    served.save(tmp_path, 1)
    told = []

    async def body():
        stop = asyncio.Event()
        started = asyncio.create_task(
            embedded.run(
                served.settings(tmp_path, port=0, rest_api_port=0), stop, report=told.append, ready=told.append
            )
        )
        await asyncio.sleep(0)
        stop.set()
        await asyncio.wait_for(started, 5)

    asyncio.run(body())
    assert told == []


def health(running):
    with grpc.insecure_channel(running.grpc) as channel:
        return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status


def test_a_model_without_a_version_takes_nothing_from_the_others(tmp_path):
    a, b, c = (tmp_path / name for name in "abc")
    for folder in (a, b, c):
        folder.mkdir()
    served.save(a, 1)
    config = tmp_path / "models.config"

    def written(*folders):
        entries = "".join(f'config {{ name: "{folder.name}" base_path: "{folder}" }}' for folder in folders)
        config.write_text(f"model_config_list {{ {entries} }}")

    written(a)
    followed = {"model_config_file": str(config), "model_config_file_poll_wait_seconds": 0.1}
    both = (ModelSettings("a", str(a)), ModelSettings("b", str(b)))
    serving = health_pb2.HealthCheckResponse.SERVING
    with served.running(served.settings(a, models=both, **followed)) as running:
        eventually(lambda: health(running) == serving)  # `b` has none from the start
        (c / "1").mkdir()
        (c / "1" / "saved_model.pb").write_bytes(b"nonsense")
        written(a, b, c)
        eventually(lambda: any("c: version 1 refused" in line for line in running.lines))
        time.sleep(0.5)
        assert health(running) == serving
        assert version_of(running, "a") == 1


def test_a_server_whose_models_do_not_load_is_not_healthy(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        folder.mkdir()
    served.save(a, 1)
    (b / "1").mkdir()
    (b / "1" / "saved_model.pb").write_bytes(b"nonsense")
    both = (ModelSettings("a", str(a)), ModelSettings("b", str(b)))
    with served.running(served.settings(a, models=both)) as running:
        time.sleep(0.5)
        assert health(running) == health_pb2.HealthCheckResponse.NOT_SERVING
        shutil.rmtree(b / "1")
        eventually(lambda: health(running) == health_pb2.HealthCheckResponse.SERVING)


@pytest.mark.parametrize("part", ["startup", "main_loop"])
def test_a_rest_api_that_ends_by_itself_ends_the_server(tmp_path, monkeypatch, part):
    served.save(tmp_path, 1)
    told = []

    async def fails(*_, **__):
        if part == "main_loop":
            await asyncio.sleep(0.3)
        raise OSError("no more files")

    monkeypatch.setattr(http.RestServer, part, fails)

    async def body():
        settings = served.settings(tmp_path, port=0, rest_api_port=0, drain_seconds=1)
        await asyncio.wait_for(embedded.run(settings, asyncio.Event(), report=lambda line: None, ready=told.append), 30)

    with pytest.raises(InputError, match=r"the REST API has ended by itself \(OSError: no more files\)"):
        asyncio.run(body())
    assert len(told) == (part == "main_loop")  # never ready without it


def test_start_up_errors(tmp_path):
    def start(folder, **changes):
        with served.running(served.settings(folder, **changes)):
            pass

    with pytest.raises(InputError, match="must be a folder"):
        start(tmp_path / "none")
    model = tmp_path / "bert"
    (model / "1").mkdir(parents=True)
    with pytest.raises(InputError, match=r"has no version folder .*bert has: name that one"):
        start(tmp_path)
    (model / "1" / "saved_model.pb").write_bytes(b"nonsense")
    os.utime(model / "1" / "saved_model.pb")
    with pytest.raises(InputError, match="no version of toy could be loaded"):
        start(model)
    with pytest.raises(InputError, match="is a version itself"):
        start(model / "1")


def test_a_taken_port_is_said(tmp_path):
    (tmp_path / "1").mkdir()

    async def run(settings):
        await embedded.run(settings, asyncio.Event(), report=print, ready=print)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for ports in ({"port": port, "rest_api_port": -1}, {"port": -1, "rest_api_port": port}):
            with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{port} .*choose another port"):
                asyncio.run(run(served.settings(tmp_path, **ports)))


# ----------------------------------------------------------------------------------------------- without TensorFlow


class FakeModel:
    def __init__(self, name, version, folder):
        if (folder / "broken").exists():
            raise ValueError("broken")
        self.name, self.version, self.in_flight, self.load_seconds = name, version, 0, 0.0
        self.threads = [threading.get_ident()]

    def warm_up(self, folder, go_on):
        self.threads.append(threading.get_ident())
        return 0

    def close(self):
        pass


def fake_version(base: pathlib.Path, number, broken=False):
    folder = base / str(number)
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"x")
    if broken:
        (folder / "broken").touch()


def fake_models(base, **policy):
    return Models(
        (ModelSettings("m", str(base), **policy),), load=FakeModel, report=lambda line: None, settle_seconds=0
    )


@pytest.mark.parametrize(
    ("policy", "loaded"),
    [
        ({}, [9]),
        ({"num_versions": 2}, [9, 3]),
        ({"policy": "all"}, [9, 3, 1]),
        ({"policy": "specific", "versions": (1, 7)}, [1]),
    ],
)
def test_policies_fall_back_on_what_loads(tmp_path, policy, loaded):
    for number in (1, 3, 9):
        fake_version(tmp_path, number)
    fake_version(tmp_path, 10, broken=True)
    (tmp_path / "11").mkdir()  # nothing in it yet
    for name in ("0x12", "12.tmp", ".export-1", "-1", "99999999999999999999"):
        (tmp_path / name).mkdir()

    async def run():
        models = fake_models(tmp_path, **policy)
        await models.refresh()
        await models.refresh()
        return [number for number, state, _ in models.status("m") if state.name == "AVAILABLE"]

    assert asyncio.run(run()) == loaded


def test_a_version_in_use_is_kept_until_its_requests_are_answered(tmp_path):
    fake_version(tmp_path, 1)

    async def run():
        models = fake_models(tmp_path)
        await models.refresh()
        old = models.find("m")
        old.in_flight = 1
        fake_version(tmp_path, 2)
        await models.refresh()
        assert models.find("m").version == 2
        await asyncio.sleep(0.15)
        assert [(number, state.name) for number, state, _ in models.status("m")] == [(2, "AVAILABLE"), (1, "UNLOADING")]
        with pytest.raises(RequestError, match=r"Specific\(m, 1\)"):
            models.find("m", 1)
        old.in_flight = 0
        await asyncio.sleep(0.15)
        assert [number for number, _, _ in models.status("m")] == [2]

    asyncio.run(run())


def test_two_threads_load_the_versions_of_each_model_in_turn(tmp_path):
    """So that a version's memory is not mixed with that of the one it replaces."""
    names = ("a", "b")
    for name in names:
        (tmp_path / name).mkdir()

    async def run():
        settings = tuple(ModelSettings(name, str(tmp_path / name)) for name in names)
        models = Models(settings, load=FakeModel, report=lambda line: None, settle_seconds=0)
        threads = {name: [] for name in names}
        for number in (1, 2, 3, 4, 5):
            for name in names:
                fake_version(tmp_path / name, number)
                await models.refresh()
                loaded = models.find(name)
                assert loaded.version == number
                if number > 1:  # the first warms up while it answers
                    assert len(loaded.threads) == 2
                    threads[name].append(set(loaded.threads))
        return threads

    for first, second, *later in asyncio.run(run()).values():
        assert first.isdisjoint(second)
        assert len(first) == 1
        assert later == [first, second]


def test_nothing_loaded_yet(tmp_path):
    async def run():
        models = fake_models(tmp_path)
        await models.refresh()
        assert not models.all_answer()
        with pytest.raises(RequestError) as error:
            models.find("m")
        assert error.value.code is Code.UNAVAILABLE

    asyncio.run(run())


def test_whole_needs_all_shards(tmp_path):
    def files(*names):
        return tuple((name, 1, 0, 0) for name in names)

    shards = [f"variables/variables.data-0000{i}-of-00002" for i in range(2)]
    assert versions.is_whole(files("saved_model.pb", "variables/variables.index", *shards))
    assert not versions.is_whole(files("saved_model.pb", "variables/variables.index", shards[0]))
    assert not versions.is_whole(files("saved_model.pb", *shards))
    assert not versions.is_whole(files("variables/variables.index", *shards))
    assert not versions.is_whole((("saved_model.pb", 0, 0, 0),))


def test_settled_by_the_clock_or_by_looking_twice(tmp_path):
    settled = versions.Settled(0.05)
    now = time.time_ns()
    assert settled(tmp_path, (("a", 1, now - 10**9, 0),))
    ahead = (("a", 1, now + 10**12, 0),)
    assert not settled(tmp_path, ahead)
    time.sleep(0.06)
    assert settled(tmp_path, ahead)
    assert not settled(tmp_path, (("a", 2, now + 10**12, 0),))
