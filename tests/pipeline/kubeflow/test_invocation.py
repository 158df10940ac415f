import pytest

from pipeline.components.vocabulary import Vocabulary
from pipeline.kubeflow import invocation
from preprocessing.errors import InputError

MODEL = {"instanceSchema": "title: tfx.Model\ntype: object\n"}


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("s3://bucket/a b/Trainer/1/model", "/s3/bucket/a b/Trainer/1/model"),
        ("gs://bucket/x", "/gcs/bucket/x"),
        ("minio://mlpipeline/v2/artifacts/x", "/minio/mlpipeline/v2/artifacts/x"),
    ],
)
def test_a_uri_is_where_the_launcher_copies_it(uri, path):
    assert invocation.local_path(uri) == path


@pytest.mark.parametrize("uri", ["/local/x", "oci://registry/model", "pvc://claim/x", ""])
def test_a_place_that_no_launcher_copies_is_refused(uri):
    with pytest.raises(InputError, match=r"must lie in a bucket: gs://, s3:// or minio://\. Received"):
        invocation.local_path(uri)


def told(**changes):
    """As the driver writes it: no type, a number for a name, and an output that is not the step's."""
    model = {"name": "17", "uri": "s3://b/model", "type": {"instanceSchema": ""}, "metadata": {"a": 1.0}}
    blessing = {"name": "blessing", "uri": "s3://b/blessing", "type": {"schemaTitle": "x"}} | changes
    logs = {"name": "executor-logs", "uri": "s3://b/logs", "type": {"schemaTitle": "system.Artifact"}}
    return {
        "inputs": {"artifacts": {"model": {"artifacts": [model]}, "optional": {}}, "parameterValues": {"code": "1"}},
        "outputs": {
            "artifacts": {"blessing": {"artifacts": [blessing]}, "executor-logs": {"artifacts": [logs]}},
            "outputFile": "/tmp/x",
        },
    }


SPEC = {"artifacts": {"model": {"artifactType": MODEL}}}


def test_inputs_and_outputs_become_local_and_have_their_types(tmp_path):
    value = told()
    places = invocation.prepare(value, SPEC, [], str(tmp_path))
    (model,) = value["inputs"]["artifacts"]["model"]["artifacts"]
    (blessing,) = value["outputs"]["artifacts"]["blessing"]["artifacts"]
    assert model == {"name": "17", "uri": f"{tmp_path}/s3/b/model", "type": MODEL, "metadata": {"a": 1.0}}
    assert blessing["type"] == {"schemaTitle": "x"}
    assert (tmp_path / "s3/b/blessing").is_dir()
    assert list(value["outputs"]["artifacts"]) == ["blessing"]
    assert places == {f"{tmp_path}/s3/b/model": "s3://b/model", f"{tmp_path}/s3/b/blessing": "s3://b/blessing"}


def test_a_type_of_our_own_is_named_as_it_is_imported(tmp_path):
    assert {Vocabulary.TYPE_NAME: f"{Vocabulary.__module__}.{Vocabulary.__qualname__}"} == invocation.TYPES
    value = told(type={"instanceSchema": f"title: {Vocabulary.TYPE_NAME}\ntype: object\n"})
    invocation.prepare(value, SPEC, [], str(tmp_path))
    (output,) = value["outputs"]["artifacts"]["blessing"]["artifacts"]
    assert output["type"] == {"schemaTitle": invocation.TYPES[Vocabulary.TYPE_NAME]}


def test_what_a_step_says_has_uris_again():
    places = {"/s3/b/model": "s3://b/model", "/s3/b/model2": "s3://b/model2"}
    said = {"a": ["/s3/b/model", "/s3/b/model/x", {"b": "/s3/b/model2", "c": "see /s3/b/model"}], "n": 1.0, "o": None}
    assert invocation.restore(said, places) == {
        "a": ["s3://b/model", "s3://b/model/x", {"b": "s3://b/model2", "c": "see /s3/b/model"}],
        "n": 1.0,
        "o": None,
    }


@pytest.mark.parametrize(
    ("args", "elsewhere"),
    [
        ([], False),
        (["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"], False),
        (["--runner=PrismRunner"], False),
        (["--runner=PrismRunner", "--runner=FlinkRunner", "--flink_master=host:8081"], True),
        (["--runner=FlinkRunner", "--runner=DirectRunner"], False),
        (["--runner=DataflowRunner"], True),
    ],
)
def test_the_last_runner_counts(args, elsewhere):
    assert invocation.runs_elsewhere(args) is elsewhere


def test_workers_elsewhere_are_given_the_bucket_itself(tmp_path):
    remote = ["--runner=DataflowRunner"]
    value = told()
    with pytest.raises(InputError, match=r"a Beam runner with workers of its own needs artifacts in gs://"):
        invocation.prepare(value, SPEC, remote, str(tmp_path))
    value = told(uri="gs://b/blessing")
    value["inputs"]["artifacts"] = {}
    assert invocation.prepare(value, SPEC, remote, str(tmp_path)) == {}
    assert value["outputs"]["artifacts"]["blessing"]["artifacts"][0]["uri"] == "gs://b/blessing"
    assert not list(tmp_path.iterdir())
