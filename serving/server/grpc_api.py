"""TensorFlow Serving's gRPC services over the event loop, with health and reflection."""

import asyncio
import contextlib
import importlib
import logging
import time
from collections.abc import Awaitable, Callable

import grpc
from google.protobuf import any_pb2, descriptor_pool
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.engine.inference import Inference
from serving.protocol import tensors
from serving.protocol.errors import Code, RequestError
from serving.server.metadata import METADATA_FIELD, no_examples, signature_def_map
from serving.server.metrics import Metrics

# These fail half-way under protobuf's C implementation, after the service's description has been registered, which is
# all that reflection needs.
for _module in ("prediction_service_pb2", "model_service_pb2"):
    with contextlib.suppress(AttributeError):
        importlib.import_module(f"tensorflow_serving.apis.{_module}")

log = logging.getLogger(__name__)

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"
HEALTH_NAMES = ("", "PredictionService", "ModelService", PREDICTION_SERVICE, MODEL_SERVICE)
_CODES = {code: grpc.StatusCode[code.name] for code in Code}

Reload = Callable[[object], Awaitable[None]]


class PredictionService:
    """Predict and GetModelMetadata. With `as_content`, numbers in answers are bytes, not lists."""

    def __init__(self, inference: Inference, metrics: Metrics, as_content: bool):
        self._inference = inference
        self._metrics = metrics
        self._as_content = as_content

    async def Predict(self, request):
        start, status, name = time.perf_counter(), "INTERNAL", "unknown"
        try:
            spec = request.model_spec
            signature = self._inference.signature(*_chosen(spec), spec.signature_name)
            name = signature.model.name
            signature.check_names(request.inputs)  # first: each tensor may stand for more than it sends
            inputs = {key: tensors.from_proto(proto) for key, proto in request.inputs.items()}
            outputs = await self._inference.run(signature, inputs, request.output_filter)
            response = predict_pb2.PredictResponse()
            _fill(response.model_spec, signature.model)
            response.model_spec.signature_name = signature.name
            for key, array in outputs.items():
                tensors.to_proto(array, response.outputs[key], self._as_content)
            status = "OK"
            return response
        except RequestError as error:
            status = error.code.name
            raise
        except asyncio.CancelledError:
            status = "CANCELLED"
            raise
        finally:
            self._metrics.answered(name, "GRPC", status, time.perf_counter() - start)

    async def GetModelMetadata(self, request):
        if set(request.metadata_field) - {METADATA_FIELD} or not request.metadata_field:
            received = list(request.metadata_field)
            raise RequestError(
                Code.INVALID_ARGUMENT, f'metadata_field must be "{METADATA_FIELD}". Received: {received}'
            )
        model = self._inference.models.find(*_chosen(request.model_spec))
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        _fill(response.model_spec, model)
        packed = any_pb2.Any()
        packed.Pack(signature_def_map(model))
        response.metadata[METADATA_FIELD].CopyFrom(packed)
        return response

    async def Classify(self, request):
        raise RequestError(Code.UNIMPLEMENTED, no_examples("Classify"))

    async def Regress(self, request):
        raise RequestError(Code.UNIMPLEMENTED, no_examples("Regress"))

    async def MultiInference(self, request):
        raise RequestError(Code.UNIMPLEMENTED, no_examples("MultiInference"))


class ModelService:
    """GetModelStatus and HandleReloadConfigRequest."""

    def __init__(self, inference: Inference, reload: Reload):
        self._models = inference.models
        self._reload = reload

    async def GetModelStatus(self, request):
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, state, message in self._models.status(*_chosen(request.model_spec)):
            status = response.model_version_status.add(version=version, state=state.value)
            status.status.error_message = message
            status.status.error_code = Code.UNKNOWN.number if message else 0
        return response

    async def HandleReloadConfigRequest(self, request):
        if request.config.WhichOneof("config") != "model_config_list":
            raise RequestError(Code.INVALID_ARGUMENT, "a reload needs a model_config_list")
        await self._reload(request.config)
        return model_management_pb2.ReloadConfigResponse()


def _handler(function, request_class):
    """Of one method. What it raises, and bytes that are no request, become codes."""

    async def answered(data, context):
        try:
            try:
                request = request_class.FromString(data)
            except DecodeError:
                raise RequestError(
                    Code.INVALID_ARGUMENT, f"the bytes are no {request_class.DESCRIPTOR.full_name}"
                ) from None
            return await function(request)
        except RequestError as error:
            await context.abort(_CODES[error.code], error.message)
        except Exception as error:
            log.exception("a request failed")
            await context.abort(grpc.StatusCode.INTERNAL, f"the server failed: {type(error).__name__}")

    return grpc.unary_unary_rpc_method_handler(answered, response_serializer=lambda answer: answer.SerializeToString())


def add_services(
    server: grpc.aio.Server, inference: Inference, metrics: Metrics, reload: Reload, as_content: bool = False
):
    """Registers everything; returns the health servicer, which says NOT_SERVING until it is told otherwise."""
    prediction, models = PredictionService(inference, metrics, as_content), ModelService(inference, reload)
    services = {
        PREDICTION_SERVICE: {
            prediction.Predict: predict_pb2.PredictRequest,
            prediction.GetModelMetadata: get_model_metadata_pb2.GetModelMetadataRequest,
            prediction.Classify: classification_pb2.ClassificationRequest,
            prediction.Regress: regression_pb2.RegressionRequest,
            prediction.MultiInference: inference_pb2.MultiInferenceRequest,
        },
        MODEL_SERVICE: {
            models.GetModelStatus: get_model_status_pb2.GetModelStatusRequest,
            models.HandleReloadConfigRequest: model_management_pb2.ReloadConfigRequest,
        },
    }
    for service, methods in services.items():
        handlers = {method.__name__: _handler(method, request) for method, request in methods.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    names = (PREDICTION_SERVICE, MODEL_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, pool=_Descriptors())
    return healthy


class _Descriptors:
    """The default pool, which under protobuf's C implementation finds services but not their methods; ghz asks for
    those."""

    def __init__(self):
        self._pool = descriptor_pool.Default()

    def FindFileContainingSymbol(self, name):
        try:
            return self._pool.FindFileContainingSymbol(name)
        except KeyError:
            return self._pool.FindServiceByName(name.rpartition(".")[0]).file

    def __getattr__(self, name):
        return getattr(self._pool, name)


async def set_health(healthy, serving: bool) -> None:
    """For the whole server (the empty name) and both services, by TensorFlow Serving's short names and in full."""
    status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    for name in HEALTH_NAMES:
        await healthy.set(name, status)


def _chosen(spec) -> tuple[str, int | None, str | None]:
    """(name, version, label) of a ModelSpec."""
    which = spec.WhichOneof("version_choice")
    if not spec.name:
        raise RequestError(Code.INVALID_ARGUMENT, "model_spec.name is missing")
    return (
        spec.name,
        spec.version.value if which == "version" else None,
        spec.version_label if which == "version_label" else None,
    )


def _fill(spec, model):
    spec.name = model.name
    spec.version.value = model.version
