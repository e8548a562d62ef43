"""The chart renders, Kubernetes' own schemas take it, and its settings are the services' settings.

Needs Go (it builds helm, minutes the first time, and fetches the schemas); without it these tests
are skipped.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.helm.check import CHART, UNCHECKED, VALUES, Refused, Resource, lint, problems, render
from deploy.helm.toolbox import Unavailable, helm, kubernetes_schemas
from shared.contracts.tasks import load_tasks
from shared.contracts.topics import Topic, load_topics
from shared.secret_files import is_secret

pytestmark = pytest.mark.timeout(900)  # the first test waits for the build

SMALL, PRODUCTION = CHART / "ci" / "small-values.yaml", CHART / "ci" / "production-values.yaml"
ROOT = Path(__file__).resolve().parents[2]
SERVICES = {"router", "trainer", "ingest", "teacher", "console"}


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    try:
        helm()
        kubernetes_schemas()
    except Unavailable as error:
        pytest.skip(f"the chart cannot be rendered here: {error}")


@pytest.fixture(scope="module")
def production() -> list[Resource]:
    return render(PRODUCTION)


@pytest.fixture(scope="module")
def small() -> list[Resource]:
    return render(SMALL)


def of_kind(resources: list[Resource], kind: str) -> dict[str, Resource]:
    """By component."""
    return {
        resource["metadata"]["labels"]["app.kubernetes.io/component"]: resource
        for resource in resources
        if resource["kind"] == kind
    }


def pods(resources: list[Resource]) -> dict[str, dict[str, Any]]:
    workloads = of_kind(resources, "Deployment") | of_kind(resources, "StatefulSet")
    return {name: workload["spec"]["template"]["spec"] for name, workload in workloads.items()}


def environment(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {variable["name"]: variable for variable in pod["containers"][0]["env"]}


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_kubernetes_takes_it(values: Path) -> None:
    lint(values)
    resources = render(values)
    assert [problem for resource in resources for problem in problems(resource)] == []
    unchecked = {(each["apiVersion"], each["kind"]) for each in resources} & UNCHECKED
    assert len(resources) - len(unchecked) >= 15


def _unknown_field(resource: Resource) -> None:
    resource["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Always"


def _port_of_another_type(resource: Resource) -> None:
    resource["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = "health"


def _no_selector(resource: Resource) -> None:
    del resource["spec"]["selector"]


def _another_kind(resource: Resource) -> None:
    resource["kind"] = "Deploymint"


@pytest.mark.parametrize(
    "spoil", [_unknown_field, _port_of_another_type, _no_selector, _another_kind]
)
def test_a_broken_manifest_is_found(small: list[Resource], spoil: Callable[[Resource], None]):
    broken = json.loads(json.dumps(of_kind(small, "Deployment")["router"]))
    assert problems(broken) == []
    spoil(broken)
    assert problems(broken)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("kafka.bootstrapServers=kafka", "bootstrapServers"),
        ("kafka.bootstrapServers=", "name your brokers"),
        ("redis.url=http://redis", "url"),
        ("redis.url=", "where is Redis"),
        ("router.replica=3", "replica"),
        ("keda.minReplicas=0", "minReplicas"),
        ("delivery=twice", "delivery"),
        ("tasks=null", "tasks"),
        ("router.door.enabled=true", "TRACER_DOOR_TOKEN"),
        ("ingest.otlp.enabled=true", "TRACER_OTLP_TOKEN"),
        ("console.enabled=true", "TRACER_CONSOLE_TOKEN"),
        ("console.url=tracer.example", "url"),
        ("podMonitor.enabled=true", "networkPolicy.metricsFrom"),
        ("signing.keysConfigMap=", "whose signatures count"),
        ("signing.existingSecret=", "what does the trainer sign with"),
    ],
)
def test_values_that_cannot_work_are_refused(setting: str, named: str) -> None:
    with pytest.raises(Refused, match=named):
        render(SMALL, setting)


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_settings_are_those_of_the_services(values: Path) -> None:
    for service, pod in pods(render(values)).items():
        module = importlib.import_module(f"services.{service}.config")
        known = getattr(module, f"{service.capitalize()}Settings").model_fields
        names = {name for name in environment(pod) if name.startswith("TRACER_")}
        secrets = {f"TRACER_{name.upper()}_FILE" for name, f in known.items() if is_secret(f)}
        assert names <= {f"TRACER_{field.upper()}" for field in known} | secrets


def test_every_pod_is_unprivileged_and_probed(production: list[Resource]) -> None:
    assert set(pods(production)) == SERVICES
    for pod in pods(production).values():
        container = pod["containers"][0]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == 10001
        assert not pod["automountServiceAccountToken"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        # /data and /tmp are all that may be written.
        assert {mount["mountPath"] for mount in container["volumeMounts"]} >= {"/data", "/tmp"}


def secrets(pod: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Secret and key of the variables that come from one."""
    found = {}
    for name, variable in environment(pod).items():
        if taken := variable.get("valueFrom", {}).get("secretKeyRef"):
            found[name] = (taken["name"], taken["key"])
    return found


def job_of_topics(resources: list[Resource]) -> dict[str, Any]:
    found: dict[str, Any] = of_kind(resources, "Job")["topics"]["spec"]["template"]["spec"]
    return found


def test_credentials_come_from_secrets() -> None:
    common = ("kafka.existingSecret=tracer-kafka", "redis.existingSecret=tracer-redis")
    resources = render(SMALL, *common, "console.enabled=true", "console.existingSecret=c")
    kafka = {"TRACER_KAFKA": ("tracer-kafka", "settings")}
    for pod in pods(resources).values():
        assert secrets(pod) == kafka | {"TRACER_REDIS_URL": ("tracer-redis", "url")}
    assert secrets(job_of_topics(resources)) == kafka


def test_a_service_has_credentials_of_its_own_where_they_are_named(
    production: list[Resource],
) -> None:
    """As security.md advises; the example does so with those who must not move a version."""
    chosen = {name: secrets(pod)["TRACER_REDIS_URL"] for name, pod in pods(production).items()}
    owners = dict.fromkeys(("trainer", "console"), ("tracer-redis", "url"))
    others = ("router", "ingest", "teacher")
    assert chosen == owners | {name: (f"tracer-redis-{name}", "url") for name in others}
    named = [f"{name}.kafkaSecret=k-{name}" for name in (*SERVICES, "topics")]
    named += [f"{name}.redisSecret=r-{name}" for name in SERVICES]
    resources = render(PRODUCTION, *named)
    for name, pod in pods(resources).items():
        taken = secrets(pod)
        assert taken["TRACER_KAFKA"] == (f"k-{name}", "settings")
        assert taken["TRACER_REDIS_URL"] == (f"r-{name}", "url")
    assert secrets(job_of_topics(resources)) == {"TRACER_KAFKA": ("k-topics", "settings")}
    # None in common is needed then.
    alone = [*named, "redis.existingSecret=", "kafka.existingSecret=", "console.enabled=false"]
    assert "TRACER_REDIS_URL" in secrets(pods(render(PRODUCTION, *alone))["router"])


def test_a_setting_in_a_services_env_takes_the_place_of_the_charts(tmp_path: Path) -> None:
    env = {"TRACER_LOG_LEVEL": "DEBUG", "TRACER_DOOR_PORT": "8011", "MORE": "1"}
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(yaml.safe_load(SMALL.read_text()) | {"router": {"env": env}}))
    rendered = pods(render(values))
    for pod in rendered.values():
        names = [variable["name"] for variable in pod["containers"][0]["env"]]
        assert len(names) == len(set(names))
    told = environment(rendered["router"])
    assert {name: told[name]["value"] for name in env} == env
    assert environment(rendered["teacher"])["TRACER_LOG_LEVEL"]["value"] == "INFO"


def test_certificates_are_files_of_every_pod_and_of_the_job(small: list[Resource]) -> None:
    """`ssl.ca.location` and `ssl_ca_certs` name files."""
    resources = render(PRODUCTION, "certificates.existingSecret=tracer-certificates")
    assert [problem for resource in resources for problem in problems(resource)] == []
    for pod in (*pods(resources).values(), job_of_topics(resources)):
        (mount,) = (m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "certificates")
        assert (mount["mountPath"], mount["readOnly"]) == ("/certificates", True)
        (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "certificates")
        # Keys among them: for the pod's own user and group, which is fsGroup's.
        assert volume["secret"] == {"secretName": "tracer-certificates", "defaultMode": 0o440}
        assert pod["securityContext"]["fsGroup"]
    for pod in (*pods(small).values(), job_of_topics(small)):
        assert "certificates" not in {volume["name"] for volume in pod.get("volumes", ())}


def test_only_the_trainer_is_given_the_signing_key(production: list[Resource]) -> None:
    for service, pod in pods(production).items():
        mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert ("signing" in mounts) is (service == "trainer")
        assert environment(pod)["TRACER_TRUSTED_KEYS"]["value"] == "/keys/trusted.json"
        assert "keys" in mounts
    for pod in pods(render(SMALL, "signing.allowUnsigned=true")).values():
        assert environment(pod)["TRACER_UNSIGNED"]["value"] == "allow"
        assert "TRACER_TRUSTED_KEYS" not in environment(pod)


def test_the_trainer_signs_already_while_unsigned_versions_are_believed() -> None:
    """The step before keys, in docs/upgrading.md: else the last version before it is unsigned."""
    for secret, signs in (("tracer-signing", True), ("", False)):
        unsigned = f"signing.existingSecret={secret}", "signing.allowUnsigned=true"
        resources = render(SMALL, *unsigned)
        assert [problem for resource in resources for problem in problems(resource)] == []
        for service, pod in pods(resources).items():
            mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
            holds = signs and service == "trainer"
            assert ("signing" in mounts) is holds
            assert ("TRACER_SIGNING_KEY_FILE" in environment(pod)) is holds
            assert "keys" not in mounts


def test_the_runbook_copies_a_pod_that_has_what_operators_need(small: list[Resource]) -> None:
    """`kubectl debug` of the trainer's, with the image of tracerctl."""
    said = (ROOT / "docs" / "runbook.md").read_text()
    asked = re.search(
        r"kubectl debug (\S+)-0 .*--container=(\w+) \\\s+--set-image=(\w+)=(\S+) -- sh", said
    )
    assert asked
    assert of_kind(small, "StatefulSet")["trainer"]["metadata"]["name"] == asked[1]
    pod = pods(small)["trainer"]
    assert {pod["containers"][0]["name"]} == {asked[2], asked[3]}
    assert job_of_topics(small)["containers"][0]["image"] == asked[4]
    needed = {"TRACER_BOOTSTRAP_SERVERS", "TRACER_REDIS_URL", "TRACER_TRUSTED_KEYS", "TRACER_STORE"}
    assert needed <= set(environment(pod))
    mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert {"/config", "/data", "/keys", "/tmp"} <= mounts


def test_routers_follow_the_lag_of_their_own_group(production: list[Resource]) -> None:
    scaled = of_kind(production, "ScaledObject")["router"]["spec"]
    trigger = scaled["triggers"][0]["metadata"]
    assert trigger["consumerGroup"] == "tracer-router-prod"
    assert trigger["topic"] == "prod.requests"
    assert scaled["maxReplicaCount"] <= load_topics()[Topic.REQUESTS].partitions
    router = of_kind(production, "Deployment")["router"]
    assert scaled["scaleTargetRef"]["name"] == router["metadata"]["name"]
    # Replicas in both would undo each other at every upgrade.
    assert "replicas" not in router["spec"]


def test_a_large_lag_is_written_as_keda_reads_it(tmp_path: Path) -> None:
    """It reads integers. Numbers of a file are floats to helm (2e+06), those of --set are not."""
    keda = {"enabled": True, "lagThreshold": 2_000_000, "activationLagThreshold": 1_000_000}
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(yaml.safe_load(PRODUCTION.read_text()) | {"keda": keda}))
    scaled = of_kind(render(values), "ScaledObject")["router"]["spec"]
    trigger = scaled["triggers"][0]["metadata"]
    assert trigger["lagThreshold"] == "2000000"
    assert trigger["activationLagThreshold"] == "1000000"


def test_two_routers_never_share_a_transactional_id(production: list[Resource]) -> None:
    named = environment(pods(production)["router"])["TRACER_INSTANCE"]
    assert named["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"


def test_tracer_down_finds_the_pods_whatever_the_release_is_called(
    production: list[Resource],
) -> None:
    """Without `jobLabel` the operator's label `job` is "<namespace>/<release>"."""
    label = of_kind(production, "PodMonitor")["metrics"]["spec"]["jobLabel"]
    alerts = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    (asked,) = (rule["expr"] for rule in rules if rule["alert"] == "TracerDown")
    (wanted,) = re.findall(r'job=~"(.*?)"', asked)
    workloads = of_kind(production, "Deployment") | of_kind(production, "StatefulSet")
    for workload in workloads.values():
        job = workload["spec"]["template"]["metadata"]["labels"][label]
        assert job == "tracer"
        assert re.fullmatch(wanted, job)


def test_policies_select_the_pods_there_are(production: list[Resource]) -> None:
    policies = of_kind(production, "NetworkPolicy")
    workloads = of_kind(production, "Deployment") | of_kind(production, "StatefulSet")
    for name, workload in workloads.items():
        labels = workload["spec"]["template"]["metadata"]["labels"]
        wanted = policies[name]["spec"]["podSelector"]["matchLabels"]
        assert wanted.items() <= labels.items()
    door = [
        rule for rule in policies["router"]["spec"]["ingress"] if rule["ports"][0]["port"] == 8010
    ]
    assert door[0]["from"][0]["namespaceSelector"]["matchLabels"]


def test_the_job_of_topics_may_reach_the_brokers_before_anything_else_is_there(
    production: list[Resource],
) -> None:
    """It is a hook: a policy that came with the release would come after it, and where all is
    denied by default the job would never reach a broker."""
    job = of_kind(production, "Job")["topics"]
    policy = of_kind(production, "NetworkPolicy")["topics"]
    hooked, opened = job["metadata"]["annotations"], policy["metadata"]["annotations"]
    assert opened["helm.sh/hook"] == hooked["helm.sh/hook"]
    assert int(opened["helm.sh/hook-weight"]) < int(hooked.get("helm.sh/hook-weight", "0"))
    assert opened["helm.sh/hook-delete-policy"] == hooked["helm.sh/hook-delete-policy"]
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    for name, other in of_kind(production, "NetworkPolicy").items():
        assert name == "topics" or "annotations" not in other["metadata"]
    assert "topics" not in of_kind(render(PRODUCTION, "topics.create=false"), "NetworkPolicy")


def test_whom_the_pod_monitor_sends_may_scrape(production: list[Resource]) -> None:
    workloads = of_kind(production, "Deployment") | of_kind(production, "StatefulSet")
    policies = of_kind(production, "NetworkPolicy")
    for name in workloads:
        (scraped,) = (
            rule for rule in policies[name]["spec"]["ingress"] if rule["ports"] == [{"port": 8080}]
        )
        assert scraped["from"][0]["namespaceSelector"]["matchLabels"]
    alone = render(SMALL, "podMonitor.enabled=true", "networkPolicy.enabled=false")
    assert of_kind(alone, "PodMonitor")


def reached(resources: list[Resource]) -> dict[str, set[int]]:
    """The ports that a service may reach, besides those of DNS."""
    return {
        name: {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]} - {53}
        for name, policy in of_kind(resources, "NetworkPolicy").items()
    }


@pytest.mark.parametrize(
    ("setting", "opened"),
    [
        ("kafka.bootstrapServers=b-1.msk:9096\\,b-2.msk:9098", {9096, 9098}),
        ("redis.url=rediss://redis:6390/0?ssl_ca_certs=/certificates/ca.pem", {6390}),
        ("redis.url=redis://tracer:1:22@redis:6390", {6390}),
        ("redis.url=redis://[fd00::12]:6390/0", {6390}),
        ("redis.url=redis+sentinel://u:p@a:26390\\,b:26391/mymaster/0", {26390, 26391}),
        ("redis.url=unix:///run/redis:1.sock", set()),
        ("redis.url=redis://redis", set()),
    ],
)
def test_every_service_may_reach_the_addresses_it_is_given(setting: str, opened: set[int]) -> None:
    before, after = reached(render(SMALL)), reached(render(SMALL, setting))
    assert {name: after[name] - before[name] for name in before} == dict.fromkeys(before, opened)


@pytest.mark.parametrize(
    ("setting", "opened"),
    [
        ("teacher.baseUrl=http://ollama:11434/v1", {11434}),
        ("teacher.baseUrl=http://ollama/v1:1", {80}),
        ("teacher.baseUrl=https://llm.example/v1", set()),
        ("tasks[0].teacher.base_url=http://vllm:8081", {8081}),
        ("tasks[0].teacher.model=small", set()),
    ],
)
def test_the_teacher_alone_may_reach_the_llms_it_is_given(setting: str, opened: set[int]) -> None:
    before, after = reached(render(SMALL)), reached(render(SMALL, setting))
    assert {name for name in before if after[name] != before[name]} == (
        {"teacher"} if opened else set()
    )
    assert after["teacher"] - before["teacher"] == opened


@pytest.mark.parametrize("ports", ["kafkaPorts", "redisPorts", "teacherPorts", "otherPorts"])
def test_ports_that_are_left_out_are_those_of_the_addresses(ports: str) -> None:
    left_out = reached(render(SMALL, f"networkPolicy.{ports}=null"))
    assert {9092, 6379} <= left_out["router"]
    assert {9092, 6379, 8000} <= left_out["teacher"]


def test_no_port_is_opened_twice(production: list[Resource]) -> None:
    for policy in of_kind(production, "NetworkPolicy").values():
        ports = [port["port"] for port in policy["spec"]["egress"][1]["ports"]]
        assert len(ports) == len(set(ports))


def test_spans_may_be_sent_where_it_is_wanted_and_nowhere_else(
    production: list[Resource], small: list[Resource]
) -> None:
    pod = pods(production)["ingest"]
    assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "tracer-otlp"}}]
    assert environment(pod)["TRACER_OTLP_HOST"]["value"] == "0.0.0.0"
    (port,) = of_kind(production, "Service")["ingest"]["spec"]["ports"]
    named = {each["name"]: each["containerPort"] for each in pod["containers"][0]["ports"]}
    assert str(named[port["targetPort"]]) == environment(pod)["TRACER_OTLP_PORT"]["value"]
    opened = {
        name: rule["from"]
        for name, policy in of_kind(production, "NetworkPolicy").items()
        for rule in policy["spec"]["ingress"]
        if rule["ports"][0]["port"] == port["port"]
    }
    assert list(opened) == ["ingest"]
    assert opened["ingest"][0]["namespaceSelector"]["matchLabels"]
    assert "TRACER_OTLP_PORT" not in environment(pods(small)["ingest"])
    assert "ingest" not in of_kind(small, "Service")


def test_the_values_of_the_docs_are_enough(tmp_path: Path) -> None:
    text = (CHART.parents[2] / "docs" / "helm.md").read_text()
    (block,) = re.findall(r"```yaml\n(# values.yaml.*?)```", text, re.DOTALL)
    values = tmp_path / "values.yaml"
    values.write_text(block)
    assert pods(render(values)).keys() >= SERVICES - {"console"}


def test_the_console_is_open_where_it_is_wanted_and_nowhere_else(
    production: list[Resource], small: list[Resource]
) -> None:
    pod = pods(production)["console"]
    assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "tracer-console"}}]
    assert environment(pod)["TRACER_CONSOLE_URL"]["value"] == "https://tracer.example"
    port = of_kind(production, "Service")["console"]["spec"]["ports"][0]["targetPort"]
    ports = {each["name"]: each["containerPort"] for each in pod["containers"][0]["ports"]}
    assert str(ports[port]) == environment(pod)["TRACER_CONSOLE_PORT"]["value"]
    policies = of_kind(production, "NetworkPolicy")
    opened = {
        name: rule["from"]
        for name, policy in policies.items()
        for rule in policy["spec"]["ingress"]
        if rule["ports"][0]["port"] == ports[port]
    }
    assert list(opened) == ["console"]
    assert opened["console"][0]["namespaceSelector"]["matchLabels"]
    assert "console" not in pods(small)
    assert "console" not in of_kind(small, "NetworkPolicy")


def test_the_console_reads_the_trainers_store_where_it_can() -> None:
    """The nearest traces of an explanation; a folder of the trainer's volume is out of reach."""
    console = ("console.enabled=true", "console.existingSecret=tracer-console")

    def stores(*settings: str) -> dict[str, str | None]:
        rendered = pods(render(SMALL, *console, *settings))
        return {
            name: environment(rendered[name]).get("TRACER_STORE", {}).get("value")
            for name in ("trainer", "console", "router")
        }

    s3 = "s3://bucket/windows?region=eu-central-1"
    assert stores(f"trainer.store={s3}") == {"trainer": s3, "console": s3, "router": None}
    assert stores() == {"trainer": "/data/windows", "console": None, "router": None}


def test_the_tasks_file_is_one_the_services_read(small: list[Resource], tmp_path: Path) -> None:
    written = tmp_path / "tasks.yaml"
    written.write_text(of_kind(small, "ConfigMap")["tasks"]["data"]["tasks.yaml"])
    assert [str(name) for name in load_tasks(written)] == ["support"]


def test_a_changed_task_restarts_the_pods() -> None:
    def checksum(*settings: str) -> str:
        router = of_kind(render(SMALL, *settings), "Deployment")["router"]
        found: str = router["spec"]["template"]["metadata"]["annotations"]["checksum/tasks"]
        return found

    assert checksum() != checksum("tasks[0].alpha=0.9")


def test_tasks_of_ones_own_restart_the_pods_by_another_name_only() -> None:
    """The chart cannot see what is in them, so the docs and the notes say how it comes into
    force."""

    def templates(name: str) -> dict[str, Any]:
        return pods(render(PRODUCTION, f"existingTasksConfigMap={name}"))

    first, second = templates("tracer-tasks-1"), templates("tracer-tasks-2")
    assert first.keys() == SERVICES
    assert all(first[service] != second[service] for service in SERVICES)
    for told in (
        CHART / "values.yaml",
        CHART / "templates" / "NOTES.txt",
        ROOT / "docs" / "helm.md",
    ):
        assert "rollout restart" in told.read_text()
        assert "existingTasksConfigMap" in told.read_text()


def test_every_value_is_described() -> None:
    """values.schema.json knows every value of values.yaml, and nothing else."""
    schema = json.loads((CHART / "values.schema.json").read_text())

    def same(described: dict[str, Any], values: Any, path: str) -> None:
        if not isinstance(values, dict) or "properties" not in described:
            return
        assert set(described["properties"]) - {"global"} == set(values), path
        for name, value in values.items():
            same(described["properties"][name], value, f"{path}.{name}")

    same(schema, yaml.safe_load((CHART / "values.yaml").read_text()), "values")
