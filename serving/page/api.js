// The REST API of TensorFlow Serving: the same calls that any other client makes.

export class Refused extends Error {}

async function answered(response) {
  let body;
  try {
    body = await response.json();
  } catch {
    throw new Refused(`The server did not answer in JSON (HTTP ${response.status}).`);
  }
  if (!response.ok) throw new Refused(body.error ?? `HTTP ${response.status}`);
  return body;
}

async function get(path) {
  return answered(await fetch(path, { cache: "no-store" }));
}

export async function models() {
  return (await get("/page/models.json")).models;
}

/** The newest version that answers, or null. */
export async function version(model) {
  const { model_version_status: statuses } = await get(`/v1/models/${encodeURIComponent(model)}`);
  const available = statuses.filter((status) => status.state === "AVAILABLE").map((status) => BigInt(status.version));
  return available.length ? available.reduce((a, b) => (a > b ? a : b)) : null;
}

export async function signatures(model) {
  const { metadata } = await get(`/v1/models/${encodeURIComponent(model)}/metadata`);
  return metadata.signature_def.signature_def;
}

/** The outputs of a signature, in columns: {name: values}. */
export async function predict(model, signature, inputs) {
  const body = JSON.stringify({ signature_name: signature, inputs });
  const path = `/v1/models/${encodeURIComponent(model)}:predict`;
  let response;
  try {
    response = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body });
  } catch {
    throw new Refused("The server cannot be reached.");
  }
  return (await answered(response)).outputs;
}
