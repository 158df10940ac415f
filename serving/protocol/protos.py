"""The messages of TensorFlow Serving that the client and the configuration files need, without TensorFlow.

The packages with the generated classes import TensorFlow, which takes seconds, and leave out some configuration files
(batching, TLS, monitoring). These classes are equal to them on the wire and in the text format. They live in a
descriptor pool of their own, so both kinds can be in one process.

Field names and numbers: tensorflow_serving/apis/*.proto, tensorflow_serving/config/*.proto, session_bundle_config.proto
and tensorflow/core/framework/{tensor,tensor_shape}.proto.
"""

import functools
import re

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_SCHEMA = """
Int64Value: int64 value = 1;

Dim: int64 size = 1; string name = 2;
TensorShape: repeated Dim dim = 2; bool unknown_rank = 3;
Tensor: int32 dtype = 1; TensorShape tensor_shape = 2; bytes tensor_content = 4; repeated float float_val = 5;
  repeated double double_val = 6; repeated int32 int_val = 7; repeated bytes string_val = 8;
  repeated int64 int64_val = 10; repeated bool bool_val = 11;
ModelSpec: string name = 1; Int64Value version = 2; string signature_name = 3; string version_label = 4;
PredictRequest: ModelSpec model_spec = 1; map Tensor inputs = 2; repeated string output_filter = 3;
PredictResponse: map Tensor outputs = 1; ModelSpec model_spec = 2;
GetModelStatusRequest: ModelSpec model_spec = 1;
Status: int32 error_code = 1; string error_message = 2;
ModelVersionStatus: int64 version = 1; int32 state = 2; Status status = 3;
GetModelStatusResponse: repeated ModelVersionStatus model_version_status = 1;
GetModelMetadataRequest: ModelSpec model_spec = 1; repeated string metadata_field = 2;
Any: string type_url = 1; bytes value = 2;
GetModelMetadataResponse: ModelSpec model_spec = 1; map Any metadata = 2;
TensorInfo: string name = 1;
SignatureDef: map TensorInfo inputs = 1; map TensorInfo outputs = 2;
SignatureDefMap: map SignatureDef signature_def = 1;

BatchingParameters: Int64Value max_batch_size = 1; Int64Value batch_timeout_micros = 2;
  Int64Value max_enqueued_batches = 3; Int64Value num_batch_threads = 4;
  StringValue thread_pool_name = 5; repeated int64 allowed_batch_sizes = 6;
  bool pad_variable_length_inputs = 7; BoolValue enable_large_batch_splitting = 8;
  Int64Value max_execution_batch_size = 9;
StringValue: string value = 1;
BoolValue: bool value = 1;
SSLConfig: string server_key = 1; string server_cert = 2; string custom_ca = 3; bool client_verify = 4;
PrometheusConfig: bool enable = 1; string path = 2;
MonitoringConfig: PrometheusConfig prometheus_config = 1;
"""

# TensorFlow's DataType numbers, by NumPy's names.
DATA_TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "object": 7, "bool": 10}
PREDICT = "/tensorflow.serving.PredictionService/Predict"
GET_MODEL_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
GET_MODEL_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"


def _build() -> dict:
    file = descriptor_pb2.FileDescriptorProto(name="bert/serving.proto", package="bert.serving", syntax="proto3")
    for name, body in re.findall(r"^(\w+):(.*(?:\n .*)*)", _SCHEMA, re.MULTILINE):
        message = file.message_type.add(name=name)
        for label, kind, field, number in re.findall(r"(repeated |map |)(\w+) (\w+) = (\d+);", body):
            if label == "map ":  # protobuf's own way: a repeated message of key and value
                entry = message.nested_type.add(name="".join(part.title() for part in field.split("_")) + "Entry")
                entry.options.map_entry = True
                _add_field(entry, "key", "string", 1)
                _add_field(entry, "value", kind, 2)
                kind = f"{name}.{entry.name}"
            _add_field(message, field, kind, int(number), repeated=bool(label))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"bert.serving.{message.name}"))
        for message in file.message_type
    }


def _add_field(message, name, kind, number, repeated=False, package="bert.serving."):
    field = message.field.add(name=name, number=number, label=3 if repeated else 1)
    scalar = f"TYPE_{kind.upper()}"
    if scalar in descriptor_pb2.FieldDescriptorProto.DESCRIPTOR.enum_values_by_name:
        field.type = descriptor_pb2.FieldDescriptorProto.Type.Value(scalar)
    else:
        field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{package}{kind}"


@functools.cache
def model_server_config():
    """The class of TensorFlow Serving's own ModelServerConfig, with the fields that its logging has got up to 2.20,
    whichever of them the package knows."""
    from google.protobuf import any_pb2
    from tensorflow_serving.config import (
        file_system_storage_path_source_pb2,
        log_collector_config_pb2,
        logging_config_pb2,
        model_server_config_pb2,
    )

    logging = descriptor_pb2.FileDescriptorProto.FromString(logging_config_pb2.DESCRIPTOR.serialized_pb)
    messages = {message.name: message for message in logging.message_type}
    if "PerTaskSamplingConfig" not in messages:
        task = logging.message_type.add(name="PerTaskSamplingConfig")
        for number, name, kind in ((1, "dc", "string"), (2, "task_index", "int32"), (3, "sampling_rate", "double")):
            _add_field(task, name, kind, number)
        kind = "tensorflow.serving.PerTaskSamplingConfig"
        _add_field(messages["SamplingConfig"], "per_task_sampling_configs", kind, 3, repeated=True, package="")
    if any_pb2.DESCRIPTOR.name not in logging.dependency:
        logging.dependency.append(any_pb2.DESCRIPTOR.name)
        _add_field(messages["LoggingConfig"], "custom_logging_config", "google.protobuf.Any", 3, package="")
    pool = descriptor_pool.DescriptorPool()
    for module in (any_pb2, log_collector_config_pb2, file_system_storage_path_source_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    pool.Add(logging)
    pool.AddSerializedFile(model_server_config_pb2.DESCRIPTOR.serialized_pb)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.serving.ModelServerConfig"))


_messages = _build()
PredictRequest = _messages["PredictRequest"]
PredictResponse = _messages["PredictResponse"]
GetModelStatusRequest = _messages["GetModelStatusRequest"]
GetModelStatusResponse = _messages["GetModelStatusResponse"]
GetModelMetadataRequest = _messages["GetModelMetadataRequest"]
GetModelMetadataResponse = _messages["GetModelMetadataResponse"]
SignatureDefMap = _messages["SignatureDefMap"]
BatchingParameters = _messages["BatchingParameters"]
SSLConfig = _messages["SSLConfig"]
MonitoringConfig = _messages["MonitoringConfig"]
