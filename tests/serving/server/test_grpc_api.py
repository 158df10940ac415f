"""TensorFlow Serving's gRPC API, asked through its own Python package and by tools that no one here wrote."""

import json
import os
import pathlib
import shutil
import subprocess
import tracemalloc

import grpc
import pytest
import tensorflow as tf
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)


@pytest.fixture(scope="module")
def channel(toy_server):
    with grpc.insecure_channel(toy_server.grpc) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def model_service(channel):
    """The two methods of ModelService, whose own stub fails to import under protobuf's C implementation."""

    def method(name, request, response):
        path = f"/tensorflow.serving.ModelService/{name}"
        return channel.unary_unary(path, request.SerializeToString, response.FromString)

    status, management = get_model_status_pb2, model_management_pb2
    return (
        method("GetModelStatus", status.GetModelStatusRequest, status.GetModelStatusResponse),
        method("HandleReloadConfigRequest", management.ReloadConfigRequest, management.ReloadConfigResponse),
    )


def request(signature="", model="toy", outputs=(), **inputs):
    message = predict_pb2.PredictRequest(output_filter=outputs)
    message.model_spec.name = model
    message.model_spec.signature_name = signature
    for name, value in inputs.items():
        message.inputs[name].CopyFrom(
            value if isinstance(value, tensor_pb2.TensorProto) else tf.make_tensor_proto(value)
        )
    return message


def refused(call, message):
    with pytest.raises(grpc.RpcError) as error:
        call(message, timeout=20)
    return error.value.code().name, error.value.details()


def test_predict(stub):
    response = stub.Predict(request(text=[b"ab", "ünï".encode(), b"\xff"]), timeout=20)
    assert response.model_spec.version.value == 2
    assert response.model_spec.signature_name == "serving_default"
    assert tf.make_ndarray(response.outputs["length"]).tolist() == [2.0, 5.0, 1.0]
    assert tf.make_ndarray(response.outputs["upper"]).tolist() == [b"AB", "üNï".encode(), b"\xff"]
    assert response.outputs["length"].float_val == [2.0, 5.0, 1.0]  # what clients in other languages read


def test_versions_labels_and_filters(stub):
    message = request(text=["x"], outputs=["version"])
    message.model_spec.version.value = 1
    response = stub.Predict(message)
    assert response.outputs["version"].int_val == [1]
    assert list(response.outputs) == ["version"]
    message.model_spec.version_label = "stable"
    assert stub.Predict(message).outputs["version"].int_val == [1]
    message.model_spec.version_label = "canary"
    assert refused(stub.Predict, message)[0] == "INVALID_ARGUMENT"
    code, details = refused(stub.Predict, request(text=["x"], outputs=["none"]))
    assert code == "INVALID_ARGUMENT"
    assert "'none'" in details


def test_the_bound_is_on_what_was_asked_for(stub):
    texts = ["x" * 40_000] * 4  # their letters would be more than a million bytes
    code, details = refused(stub.Predict, request("fill_mask", text=texts))
    assert code == "INVALID_ARGUMENT"
    assert "send fewer texts" in details
    response = stub.Predict(request("fill_mask", text=texts, outputs=["mask_count"]))
    assert list(response.outputs["mask_count"].int_val) == [40_000] * 4


def test_tensor_content_and_numbers(stub):
    numbers = tf.make_tensor_proto([[1.0, 2.0], [3.0, 4.0]])
    assert numbers.tensor_content
    response = stub.Predict(request("pair", text=["a", b"\x00"], numbers=numbers))
    assert tf.make_ndarray(response.outputs["sum"]).tolist() == [3.0, 7.0]
    assert tf.make_ndarray(response.outputs["root"]).shape == (2, 2)


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        ("dtype: DT_STRING tensor_shape { dim { size: 1 } } string_val: 'x' string_val: 'y'", "1 values. Received: 2"),
        ("dtype: DT_STRING tensor_shape { dim { size: 1048576 } } string_val: 'xxxxxxxxx'", "too large"),
        ("dtype: DT_STRING tensor_shape { dim { size: -1 } } string_val: 'x'", "must be known"),
        ("dtype: DT_STRING tensor_shape { unknown_rank: true }", "must be known"),
        ("dtype: DT_STRING tensor_shape { dim { size: 1 } } tensor_content: 'x'", "must be in string_val"),
        ("dtype: DT_COMPLEX64 tensor_shape { dim { size: 1 } }", "DataType 8"),
        ("dtype: DT_FLOAT tensor_shape { dim { size: 1 } } tensor_content: 'xy'", "must fill the shape"),
        ("dtype: DT_FLOAT tensor_shape { dim { size: 1099511627776 } } float_val: 1", "too large"),
        (
            "dtype: DT_STRING tensor_shape { dim { size: 4294967296 } dim { size: 4294967296 } } string_val: 'x'",
            "no array has that shape",
        ),
        ("dtype: DT_INT32 tensor_shape {" + "dim { size: 1 }" * 40 + "} int_val: 1", "no array has that shape"),
        ("dtype: DT_STRING tensor_shape { dim {} " + "dim { size: 9223372036854775807 }" * 2 + "}", "no array has"),
        ("dtype: DT_FLOAT tensor_shape { dim { size: 1 } } float_val: 1", "must be of type string"),
        ("dtype: DT_STRING tensor_shape { } string_val: 'x'", "must be of shape [-1]"),
    ],
)
def test_bad_tensors(stub, proto, message):
    tensor = text_format.Parse(proto, tensor_pb2.TensorProto())
    code, details = refused(stub.Predict, request(text=tensor))
    assert code == "INVALID_ARGUMENT"
    assert message in details


def test_the_short_form_of_tensors(stub):
    """TensorFlow's: the last value stands for the rest."""

    def tensor(text):
        return text_format.Parse(text, tensor_pb2.TensorProto())

    text = tensor(r"dtype: DT_STRING tensor_shape { dim { size: 3 } } string_val: 'a' string_val: 'bc\000'")
    number = tensor("dtype: DT_FLOAT tensor_shape { dim { size: 3 } dim { size: 2 } } float_val: [1, 2, 3]")
    response = stub.Predict(request("pair", text=text, numbers=number))
    assert tf.make_ndarray(response.outputs["copy_bytes"]).tolist() == [b"a", b"bc\0", b"bc\0"]
    assert tf.make_ndarray(response.outputs["sum"]).tolist() == [3, 6, 6]
    one = tensor("dtype: DT_STRING tensor_shape { dim { size: 3 } } string_val: 'abc'")
    assert stub.Predict(request("single", text=one)).outputs["length"].int_val == [3, 3, 3]
    none = tensor("dtype: DT_STRING tensor_shape { dim { size: 2 } }")
    zeros = tensor("dtype: DT_FLOAT tensor_shape { dim { size: 2 } dim { size: 2 } }")
    response = stub.Predict(request("pair", text=none, numbers=zeros))
    assert tf.make_ndarray(response.outputs["copy_bytes"]).tolist() == [b"", b""]
    assert tf.make_ndarray(response.outputs["sum"]).tolist() == [0, 0]


def test_tensors_that_nobody_asked_for_take_no_memory(stub):
    message = request("pair", text=["x"])
    for number in range(2000):
        tensor = message.inputs[f"x{number}"]
        tensor.dtype, tensor.float_val[:] = 1, [1.0]
        tensor.tensor_shape.dim.add(size=1 << 20)
    tracemalloc.start()
    code, details = refused(stub.Predict, message)  # the server is in this process
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert code == "INVALID_ARGUMENT"
    assert len(details) <= 2000
    assert most < 1 << 24


def test_bad_requests(stub):
    assert refused(stub.Predict, request(model="none", text=["x"]))[0] == "NOT_FOUND"
    assert refused(stub.Predict, request(model="", text=["x"]))[0] == "INVALID_ARGUMENT"
    code, details = refused(stub.Predict, request(model="東" * 60_000, text=["x"]))  # gRPC's trailers are bounded
    assert (code, len(details.encode()) <= 2000) == ("NOT_FOUND", True)
    assert refused(stub.Predict, request("none", text=["x"]))[0] == "FAILED_PRECONDITION"
    assert "takes the inputs" in refused(stub.Predict, request(txt=["x"]))[1]
    assert "bad is refused" in refused(stub.Predict, request("picky", text=["bad"]))[1]
    assert refused(stub.Predict, request(text=["x" * 300_000]))[0] == "RESOURCE_EXHAUSTED"  # gRPC's own bound


def test_bytes_that_are_no_request(channel, stub):
    for method in ("PredictionService/Predict", "PredictionService/Classify", "ModelService/GetModelStatus"):
        code, details = refused(channel.unary_unary(f"/tensorflow.serving.{method}"), b"\xff")
        assert code == "INVALID_ARGUMENT"
        assert "the bytes are no tensorflow.serving." in details


def test_deadline(stub):
    with pytest.raises(grpc.RpcError) as error:
        stub.Predict(request("slow", text=["2000"]), timeout=0.05)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert stub.Predict(request(text=["x"]), timeout=30)


def test_what_is_not_implemented_says_why(stub):
    for call, message in (
        (stub.Classify, classification_pb2.ClassificationRequest()),
        (stub.Regress, regression_pb2.RegressionRequest()),
        (stub.MultiInference, inference_pb2.MultiInferenceRequest()),
    ):
        code, details = refused(call, message)
        assert code == "UNIMPLEMENTED"
        assert "use Predict" in details


def test_metadata(stub):
    message = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    message.model_spec.name = "toy"
    response = stub.GetModelMetadata(message)
    assert response.model_spec.version.value == 2
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def["pair"].inputs) == {"text", "numbers"}
    message.metadata_field[:] = ["weights"]
    assert refused(stub.GetModelMetadata, message)[0] == "INVALID_ARGUMENT"


def test_status(model_service):
    message = get_model_status_pb2.GetModelStatusRequest()
    message.model_spec.name = "toy"
    found = model_service[0](message).model_version_status
    assert [(status.version, status.state) for status in found] == [(2, 30), (1, 30)]
    message.model_spec.name = "none"
    assert refused(model_service[0], message)[0] == "NOT_FOUND"


def test_reload_does_not_take_folders_from_requests(model_service, toy_folder, tmp_path):
    message = model_management_pb2.ReloadConfigRequest()
    message.config.model_config_list.config.add(name="toy", base_path=str(tmp_path))
    code, details = refused(model_service[1], message)
    assert code == "PERMISSION_DENIED"
    assert "base_path must be one that the server was started with" in details
    message.config.model_config_list.ClearField("config")
    for empty in (message, model_management_pb2.ReloadConfigRequest()):
        assert refused(model_service[1], empty)[0] == "INVALID_ARGUMENT"
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "toy"
    assert len(model_service[0](status).model_version_status) == 2


def test_health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", "PredictionService", "tensorflow.serving.PredictionService"):
        assert stub.Check(health_pb2.HealthCheckRequest(service=name)).status == health_pb2.HealthCheckResponse.SERVING


def tool(name):
    """A Go program, installed with `go install`."""
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), str(pathlib.Path.home() / "go/bin")]))
    if not path:
        pytest.skip(f"needs {name} on PATH or in ~/go/bin")
    return path


QUESTION = {
    "model_spec": {"name": "toy"},
    "inputs": {"text": {"dtype": "DT_STRING", "tensor_shape": {"dim": [{"size": 1}]}, "string_val": ["YWI="]}},
}


def test_grpcurl_by_reflection(toy_server):
    grpcurl = tool("grpcurl")

    def asked(*arguments):
        done = subprocess.run([grpcurl, "-plaintext", *arguments], capture_output=True, text=True, check=True)
        return done.stdout

    services = asked(toy_server.grpc, "list").split()
    assert {"tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"} < set(services)
    method = "tensorflow.serving.PredictionService/Predict"
    answer = json.loads(asked("-d", json.dumps(QUESTION), toy_server.grpc, method))
    assert "QUI=" in json.dumps(answer["outputs"]["upper"])
    status = asked(
        "-d", '{"model_spec": {"name": "toy"}}', toy_server.grpc, "tensorflow.serving.ModelService/GetModelStatus"
    )
    assert json.loads(status)["model_version_status"][0]["state"] == "AVAILABLE"


def test_ghz_by_reflection(toy_server):
    ghz = tool("ghz")
    command = [ghz, "--insecure", "--call", "tensorflow.serving.PredictionService.Predict", "-d", json.dumps(QUESTION)]
    done = subprocess.run(
        [*command, "-n", "200", "-c", "8", "-O", "json", toy_server.grpc], capture_output=True, check=True
    )
    assert json.loads(done.stdout)["statusCodeDistribution"] == {"OK": 200}
