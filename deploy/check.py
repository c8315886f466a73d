"""What can be known of the chart and of KServe's manifest without a cluster: `deploy/check.py KSERVE TERN`.

Helm's own engine renders the chart with several values; all of it is held against Kubernetes' schemas, strictly; what
Kubernetes has no schema for (a ServiceMonitor, an InferenceService) against what their own definitions name. Then the program TERN
runs with the words and the environment of each container, and answers on its probes. KSERVE is the unpacked package `kserve`, whose
models name every field.
"""

import importlib
import json
import os
import subprocess
import sys
import types
import urllib.request
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml
from helm_python import Chart

HERE = Path(__file__).resolve().parent
#: The Kubernetes that is checked against: the oldest and the newest of what is supported today.
VERSIONS = ("1.34", "1.37")
VALUES = {
    "by itself": {},
    "a model on a volume, keys": {"modelClaim": "models", "model": "/models/a.gguf", "keySecret": "keys", "kvMemory": "2G"},
    "scaled": {"autoscaling": {"enabled": True, "min": 2, "max": 20}},
    "monitored": {"metrics": {"serviceMonitor": True}},
    "monitored with a key": {"metrics": {"serviceMonitor": True, "open": False, "keySecret": "keys"}},
    "names": {"allowedHosts": ["ai.example.com", "ai.example.org"], "port": 9000},
}
TEXT = {"type": "string"}
#: Of monitoring.coreos.com/v1 what the chart uses.
MONITOR = {
    "type": "object", "required": ["apiVersion", "kind", "metadata", "spec"], "properties": {"spec": {
        "type": "object", "required": ["selector", "endpoints"], "additionalProperties": False, "properties": {
            "selector": {"type": "object", "properties": {"matchLabels": {"type": "object", "additionalProperties": TEXT}}},
            "endpoints": {"type": "array", "minItems": 1, "items": {
                "type": "object", "additionalProperties": False, "properties": {
                    "port": TEXT, "path": TEXT, "authorization": {
                        "type": "object", "additionalProperties": False, "required": ["credentials"], "properties": {
                            "type": TEXT, "credentials": {
                                "type": "object", "additionalProperties": False, "required": ["name", "key"],
                                "properties": {"name": TEXT, "key": TEXT}}}}}}}}}}}


def check(thing):
    """One object; a wrong one is an exception."""
    if thing["kind"] == "ServiceMonitor":
        return jsonschema.validate(thing, MONITOR)
    for version in VERSIONS:
        kubernetes_validate.validate(thing, version, strict=True)


def fields(kserve, name, value):
    """A value of KServe's against the model of this name: every field must be one of it. What is Kubernetes' is left."""
    if name.startswith("list["):
        return [fields(kserve, name[5:-1], one) for one in value]
    if not name.startswith("V1beta1") and not name.startswith("V1alpha1"):
        return None
    model = getattr(kserve, name)
    kinds = {model.attribute_map[field]: kind for field, kind in model.openapi_types.items()}
    for field, one in value.items():
        if field not in kinds:
            raise ValueError(f"{name} has no field {field}")
        fields(kserve, kinds[field], one)


def inference(folder, thing):
    package = types.ModuleType("kserve")
    # Without what the package itself imports: a server's worth of others.
    package.__path__ = [str(Path(folder) / "kserve")]
    sys.modules["kserve"] = package
    kserve = importlib.import_module("kserve.models")
    fields(kserve, "V1beta1InferenceService", thing)
    known = kserve.V1beta1PredictorSpec
    own = {known.attribute_map[field] for field, kind in known.openapi_types.items() if "V1beta1" in kind}
    own |= {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "timeout"}
    pod = {key: value for key, value in thing["spec"]["predictor"].items() if key not in own}
    check({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tern"}, "spec": pod})
    return pod["containers"][0]


def run(tern, container, host):
    """The program with a container's words and environment: its probe, and an answer to a request by a name."""
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert container["args"][0] == "story", container["args"]
    environment["TERN_PORT"] = "0"
    process = subprocess.Popen([tern, "serve", *container["args"]], env={"PATH": os.environ["PATH"], **environment},
                               stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            told = json.loads(line)
            if told.get("event") == "listening":
                break
        port = told["url"].rsplit(":", 1)[1].strip("/")
        while True:
            try:
                path = container["readinessProbe"]["httpGet"]["path"]
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10)
                break
            except urllib.error.HTTPError as wrong:
                assert wrong.code == 503
        body = json.dumps({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions", body, {"content-type": "application/json", "host": host})
        assert json.load(urllib.request.urlopen(request, timeout=30))["choices"][0]["message"]["content"]
    finally:
        process.terminate()
        process.wait(30)


def main():
    folder, tern = sys.argv[1:3]
    chart, count = Chart.load(HERE / "helm"), 0
    for name, values in VALUES.items():
        things = [thing for text in chart.render(values, name="tern").values() for thing in yaml.safe_load_all(text) if thing]
        assert {"Deployment", "Service"} <= {thing["kind"] for thing in things}, name
        for thing in things:
            check(thing)
            count += 1
        if "volume" not in name:
            (deployment,) = (thing for thing in things if thing["kind"] == "Deployment")
            host = (values.get("allowedHosts") or ["tern"])[0]
            run(tern, deployment["spec"]["template"]["spec"]["containers"][0], host)
    manifest = yaml.safe_load((HERE / "kserve.yaml").read_text())
    run(tern, inference(folder, manifest), "tern.default.example.com")
    # A check that finds nothing wrong must be able to.
    for spoil in (lambda thing: thing["spec"].update(replica=1), lambda thing: thing["spec"].update(replicas="one")):
        wrong = yaml.safe_load(chart.render({}, name="tern")["tern/templates/deployment.yaml"])
        spoil(wrong)
        try:
            check(wrong)
        except kubernetes_validate.ValidationError:
            continue
        raise AssertionError("a wrong deployment passed")
    manifest["spec"]["predictor"]["minReplica"] = 1
    try:
        inference(folder, manifest)
    except (ValueError, kubernetes_validate.ValidationError):
        pass
    else:
        raise AssertionError("a wrong InferenceService passed")
    print(f"{count} objects of the chart with {len(VALUES)} sets of values, and an InferenceService: as their schemas say, and the"
          f" program runs with them")


main()
