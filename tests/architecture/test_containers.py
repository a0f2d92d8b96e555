"""The files that make and run containers: every role is there, and none can do more than it needs."""

import re
from typing import Any

import pytest
import yaml

from services.routing.settings import RoutingSettings
from shared.settings import Settings
from tests.architecture.sources import ROOT
from throughline.services import SERVICES

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
NGINX = (ROOT / "deploy" / "nginx" / "nginx.conf").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
RUNTIME = (ROOT / "requirements-runtime.txt").read_text()
IGNORED = (ROOT / ".dockerignore").read_text()
ENVIRONMENT_EXAMPLE = (ROOT / ".env.example").read_text()
ROLES = [(service, role) for service in SERVICES for role in ("api", "consumer", "worker")]
JOBS = ("secret", "migrate", "topics")
OURS = [*JOBS, *(f"{service}-{role}" for service, role in ROLES), "gateway"]


@pytest.mark.parametrize(("service", "role"), ROLES)
def test_every_role_is_a_container_of_its_own(service: str, role: str) -> None:
    container = CONTAINERS[f"{service}-{role}"]
    assert container["command"] == ["run", service, role]
    assert container["healthcheck"]["test"][1] == "python"
    assert "/readyz" in container["healthcheck"]["test"][-1]
    assert set(container["depends_on"]) == set(JOBS)


@pytest.mark.parametrize("name", OURS)
def test_what_is_ours_can_do_little(name: str) -> None:
    container = CONTAINERS[name]
    assert container["read_only"] is True
    assert container["init"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["tmpfs"] == ["/tmp"]  # noqa: S108  # the one place that can be written
    assert "privileged" not in container


@pytest.mark.parametrize("name", CONTAINERS)
def test_no_container_gains_privileges_or_is_open_to_other_machines(name: str) -> None:
    container = CONTAINERS[name]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in container.get("ports", ()))
    assert not [volume for volume in container.get("volumes", ()) if "docker.sock" in volume]


@pytest.mark.parametrize("name", [name for name in CONTAINERS if name not in JOBS])
def test_what_runs_is_watched_limited_and_given_time_to_stop(name: str) -> None:
    container = CONTAINERS[name]
    assert container["healthcheck"]
    assert container["mem_limit"]
    assert container["stop_grace_period"]
    assert container["restart"] == "unless-stopped"


def test_postgres_keeps_its_data_where_version_18_puts_it() -> None:
    assert CONTAINERS["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]


def test_kafka_listens_apart_for_containers_and_for_this_machine() -> None:
    environment = CONTAINERS["kafka"]["environment"]
    assert environment["KAFKA_LISTENERS"].startswith("INSIDE://:19092,OUTSIDE://:9092")
    assert "INSIDE://kafka:19092" in environment["KAFKA_ADVERTISED_LISTENERS"]
    assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_no_secret_has_a_value_that_everybody_knows() -> None:
    assert CONTAINERS["capture-api"]["environment"]["THROUGHLINE_SECRET"] == "${THROUGHLINE_SECRET:-}"


def test_every_variable_of_the_file_is_in_the_example() -> None:
    used = set(re.findall(r"\$\{([A-Z_0-9]+)", (ROOT / "docker-compose.yml").read_text()))
    assert used == set(re.findall(r"^#?([A-Z_0-9]+)=", ENVIRONMENT_EXAMPLE, flags=re.MULTILINE))


def test_the_example_shows_the_defaults() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for name, shown in re.findall(r"^#([A-Z_0-9]+)=(.*)$", ENVIRONMENT_EXAMPLE, flags=re.MULTILINE):
        if name in ("THROUGHLINE_DATABASE_URL", "POSTGRES_PASSWORD"):
            continue  # one stands in the other
        defaults = set(re.findall(rf"\$\{{{name}:-([^}}]*)\}}", text))
        assert defaults == {shown}, name


def test_every_setting_of_the_file_is_one() -> None:
    given = {name.removeprefix("THROUGHLINE_").lower() for name in CONTAINERS["capture-api"]["environment"]}
    assert given <= Settings.model_fields.keys() | {f"routing_{name}" for name in RoutingSettings.model_fields}


def test_the_gateway_finds_a_service_that_came_back_elsewhere() -> None:
    assert re.search(r"resolver 127\.0\.0\.11 valid=1s", NGINX)
    assert not re.search(r"^\s*upstream ", NGINX, flags=re.MULTILINE)
    assert set(re.findall(r"proxy_pass (\S+);", NGINX)) == {"http://${service}-api:8000"}


def test_the_gateway_says_that_a_service_is_away_and_not_that_it_is_not_there() -> None:
    assert "error_page 502 504 =503 /gateway/away;" in NGINX
    away = NGINX[NGINX.index("location = /gateway/away") :]
    away = away[: away.index("}\n")]
    assert "add_header Retry-After" in away
    assert "application/problem+json" in away


def test_the_gateway_knows_every_service() -> None:
    for service in SERVICES:
        assert re.search(rf"\b{service}\b", NGINX[NGINX.index("location ~") : NGINX.index("location = / {")])
        assert f'"/{service}/openapi.json"' in NGINX


@pytest.mark.parametrize(
    "path",
    [
        "/capture/v1/imports",
        "/capture/v1/imports/1/file",
        "/capture/v1/imports/1:start",
        "/routing/v1/deals:import",
        "/nurture/v1/suppressions:import",
    ],
)
def test_files_pass_the_gateway_as_large_as_their_service_takes_them(path: str) -> None:
    places = re.findall(r"location ~ (\S+) \{(.*?)\}", NGINX.replace("${service}", "service"), flags=re.DOTALL)
    taken = next(within for pattern, within in places if re.search(pattern.replace("?<", "?P<"), path))
    assert "client_max_body_size 0;" in taken
    assert "proxy_request_buffering off;" in taken


def test_answers_do_not_wait_in_the_memory_of_the_gateway() -> None:
    assert "proxy_max_temp_file_size 0;" in NGINX


def test_the_gateway_writes_no_query_down() -> None:
    written = NGINX[NGINX.index("log_format") : NGINX.index("access_log /dev/stdout")]
    assert set(re.findall(r"\$(\w+)", written)) == {
        "time_iso8601",
        "request_method",
        "logged_path",
        "status",
        "bytes_sent",
        "request_time",
        "upstream_addr",
        "upstream_status",
        "upstream_response_time",
    }
    assert re.search(r"http \{[^}]*error_log stderr emerg;", NGINX)
    assert re.search(r"map \$uri \$logged_path", NGINX)


def test_the_image_is_built_without_a_newer_builder_and_runs_as_nobody() -> None:
    assert not re.search(r"--mount|--chmod|--link|# syntax=|<<EOF", DOCKERFILE)
    user = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, flags=re.MULTILINE)
    assert user
    assert all(int(number) > 0 for number in user[-1])
    assert 'ENTRYPOINT ["throughline"]' in DOCKERFILE


def test_the_image_installs_what_comes_as_source_alone_and_nothing_else_that_way() -> None:
    installs = re.findall(r"pip install (.*)", DOCKERFILE)
    assert installs
    assert all("--require-hashes --only-binary :all:" in install for install in installs)
    by_source = set(re.findall(r"--no-binary (\S+)", DOCKERFILE))
    locked = re.findall(r"^([a-z0-9-]+)==\S+ \\\n((?:    --hash=\S+(?: \\)?\n?)+)", RUNTIME, flags=re.MULTILINE)
    assert by_source <= {name for name, hashes in locked if hashes.count("--hash") == 1}
    for file in re.findall(r"-r /tmp/(\S+?)[;\s]", DOCKERFILE):
        assert f"!{file}\n" in IGNORED
