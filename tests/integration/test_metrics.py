"""A scrape of the real service; and a real Prometheus that scrapes it, and alerts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from subprocess import PIPE, STDOUT, run
from typing import Any

import pytest_twisted
import treq

from tests.integration.conftest import Running, Serve
from tests.integration.processes import ROOT, Process, Spawn, free_ports
from tests.integration.waiting import patiently, until
from tests.messages import heartbeat, message, over_http

RULES = ROOT / "deploy" / "prometheus" / "heartbeat.rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "heartbeat.json"
OPERATOR = "an-operators-token-of-the-show"
SCRAPER = "a-token-of-prometheus-alone"


async def scrape(running: Running, token: str | None = None) -> str:
    """What Prometheus reads."""
    wire = await running.wire()
    shown = [] if token is None else [f"Authorization: Bearer {token}"]
    wire.send(over_http("GET /metrics", *shown))
    answer = await wire.answer()
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["content-length"] == f"{len(answer.body)}"
    return answer.body.decode()


def numbers(text: str) -> dict[str, float]:
    """Each number, by its name and labels as they are written."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {
        name: float(value) for name, _, value in (one.rpartition(" ") for one in lines)
    }


def by_http(method: str, route: str, status: int) -> str:
    """The name of the number of requests that were answered so."""
    labels = f'method="{method}",route="{route}",status="{status}"'
    return f"heartbeat_http_requests_total{{{labels}}}"


def check(*command: str | Path, given: str = "") -> str:
    """What promtool says, which must be content."""
    done = run(
        ["promtool", *command],
        input=given,
        stdout=PIPE,
        stderr=STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest_twisted.ensureDeferred
async def test_a_scrape_tells_what_has_happened_over_every_transport(
    running: Running,
) -> None:
    wire = await running.wire()
    for _ in range(3):  # the first is read, the others are known
        wire.send(over_http("POST /heartbeat", body=heartbeat("1")))
        assert (await wire.answer()).status == 200
    dealer = running.dealer()
    for request in (heartbeat("2"), heartbeat("2"), message("Goodbye", clientID="2")):
        assert (await dealer.ask(request))["messageType"] == "ClientState"
    assert (await dealer.ask(b"no message"))["messageType"] == "Error"
    await running.http("GET", "/clients/nobody")
    await running.http("GET", "/nowhere")
    told = numbers(await scrape(running))
    expected = {
        'heartbeat_beats_total{transport="http"}': 3,
        'heartbeat_beats_total{transport="zeromq"}': 2,
        'heartbeat_zeromq_requests_total{type="HEARTBEAT"}': 2,
        'heartbeat_zeromq_requests_total{type="Goodbye"}': 1,
        "heartbeat_zeromq_errors_total": 1,
        'heartbeat_clients{state="UNCALIBRATED"}': 1,
        'heartbeat_changes_total{reason="heartbeat"}': 2,
        'heartbeat_changes_total{reason="goodbye"}': 1,
        "heartbeat_publications_total": 3,
        "heartbeat_commit_duration_seconds_count": 3,
        'heartbeat_refusals_total{code="UNKNOWN_CLIENT"}': 1,
        'heartbeat_refusals_total{code="BAD_MESSAGE"}': 2,
        by_http("POST", "/heartbeat", 200): 3,
        by_http("GET", "/clients/{id}", 404): 1,
        by_http("other", "other", 404): 1,
        "heartbeat_ready": 1,
    }
    assert {name: told[name] for name in expected} == expected
    assert told["heartbeat_http_connections"] >= 2

    async def a_turn_was_counted() -> bool:
        told = numbers(await scrape(running))
        return told["heartbeat_reactor_lag_seconds_count"] > 0

    await until(a_turn_was_counted)
    assert told["process_open_fds"] < told["process_max_fds"]


@pytest_twisted.ensureDeferred
async def test_promtool_finds_nothing_wrong_with_a_scrape_or_with_the_rules(
    running: Running,
) -> None:
    await running.beat("1")
    assert check("check", "metrics", given=await scrape(running)) == ""
    assert "SUCCESS: 12 rules found" in check("check", "rules", RULES)


def test_each_panel_of_the_dashboard_asks_what_prometheus_understands(
    tmp_path: Path,
) -> None:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    asked_for = [one["expr"] for panel in panels for one in panel.get("targets", ())]
    rules = [
        {"record": f"panel:{number}", "expr": expr.replace("$__rate_interval", "1m")}
        for number, expr in enumerate(asked_for)
    ]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"SUCCESS: {len(asked_for)} rules found" in check("check", "rules", file)


#: What is the matter, as series of a minute or more, and who alerts of it.
CASES: dict[str, dict[str, str]] = {
    "HeartbeatDown": {'up{job="heartbeat"}': "0x40"},
    "HeartbeatStoreInTrouble": {
        "heartbeat_store_trouble": "1x40",
        "heartbeat_ready": "1x40",
    },
    "HeartbeatOutOfTouch": {
        "heartbeat_in_touch": "0x40",
        "heartbeat_ready": "1x40",
    },
    "HeartbeatMassLoss": {"heartbeat_mass_loss_active": "1x40"},
    "HeartbeatManyLost": {
        'heartbeat_changes_total{reason="timebomb"}': "0x25 5x15",
        'heartbeat_clients{state="RUNNING"}': "50x40",
    },
    "HeartbeatManyLate": {
        "heartbeat_late_clients": "6x40",
        "heartbeat_clients_here": "30x40",
    },
    "HeartbeatFlapping": {"heartbeat_flapping_clients": "1x40"},
    "HeartbeatStalls": {"heartbeat_stalled_seconds_total": "0x25 9x15"},
    "HeartbeatSlow": {
        'heartbeat_reactor_lag_seconds_bucket{le="0.1"}': "0x40",
        'heartbeat_reactor_lag_seconds_bucket{le="0.25"}': "0+10x40",
        'heartbeat_reactor_lag_seconds_bucket{le="+Inf"}': "0+10x40",
    },
    "HeartbeatConnectionsNearLimit": {
        'heartbeat_event_streams{reader="client"}': "2x40",
        'heartbeat_event_streams{reader="operator"}': "95x40",
        "heartbeat_event_streams_limit": "100x40",
    },
    "HeartbeatClientsNearLimit": {
        'heartbeat_clients{state="RUNNING"}': "91x40",
        "heartbeat_clients_limit": "100x40",
    },
    "HeartbeatDescriptorsNearLimit": {
        'process_open_fds{job="heartbeat"}': "91x40",
        'process_max_fds{job="heartbeat"}': "100x40",
    },
}

#: A service that does well, with one client lost and one late.
WELL = {
    'up{job="heartbeat"}': "1x40",
    "heartbeat_ready": "1x40",
    "heartbeat_store_trouble": "0x40",
    "heartbeat_in_touch": "1x40",
    "heartbeat_clients_here": "20x40",
    "heartbeat_mass_loss_active": "0x40",
    'heartbeat_changes_total{reason="timebomb"}': "0x25 2x15",
    "heartbeat_late_clients": "1x40",
    "heartbeat_flapping_clients": "0x40",
    "heartbeat_stalled_seconds_total": "0x25 2x15",
    'heartbeat_clients{state="RUNNING"}': "20x40",
    "heartbeat_clients_limit": "100x40",
    'heartbeat_event_streams{reader="operator"}': "5x40",
    "heartbeat_event_streams_limit": "100x40",
    "heartbeat_http_connections": "20x40",
    "heartbeat_http_connections_limit": "100x40",
    'process_open_fds{job="heartbeat"}': "50x40",
    'process_max_fds{job="heartbeat"}': "100x40",
}


def test_each_alert_fires_in_its_case_and_none_where_all_is_well(
    tmp_path: Path,
) -> None:
    """Decided by promtool, which runs the rules over made-up series."""

    def case(series: dict[str, str], alerts: Iterable[str]) -> dict[str, Any]:
        def of_one(name: str) -> str:
            labels = ', instance="show"}'
            return (
                name.replace("}", labels) if "}" in name else name + '{instance="show"}'
            )

        return {
            "interval": "15s",
            "input_series": [
                {"series": of_one(name), "values": values}
                for name, values in series.items()
            ],
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": "9m",
                    "exp_samples": [
                        {"labels": f'{{alertname="{alert}"}}', "value": 1}
                        for alert in alerts
                    ],
                }
            ],
        }

    assert RULES.read_text("utf-8").count("- alert:") == len(CASES)
    tests = [case(series, [alert]) for alert, series in CASES.items()]
    file = tmp_path / "cases.yml"
    file.write_text(  # all JSON is YAML
        json.dumps(
            {
                "rule_files": [str(RULES)],
                "evaluation_interval": "15s",
                "tests": [*tests, case(WELL, [])],
            }
        )
    )
    assert "SUCCESS" in check("test", "rules", file)


@pytest_twisted.ensureDeferred
async def test_a_real_prometheus_scrapes_with_its_token_and_alerts(
    serve: Serve, spawn: Spawn, tmp_path: Path
) -> None:
    tokens = tmp_path / "operators"
    tokens.write_text(f"{OPERATOR} anna\n{SCRAPER} prometheus\n")
    running = await serve(operator_token_file=str(tokens), interval=0.2, timebomb=60.0)
    status, _, _ = await running.http("GET", "/metrics")
    assert status == 401
    prometheus, port = await start_prometheus(spawn, running, tmp_path)

    async def said() -> str | None:
        """What the alert says, if it fires; a busy machine may be slow besides."""
        alerts = (await asked(running, port, "/api/v1/alerts"))["alerts"]
        return next(
            (
                alert["annotations"]["summary"]
                for alert in alerts
                if alert["labels"]["alertname"] == "HeartbeatManyLate"
                and alert["state"] == "firing"
            ),
            None,
        )

    async def is_alerted() -> bool:
        return await said() == f"4 clients of 127.0.0.1:{running.port} are late"

    async def is_over() -> bool:
        return await said() is None

    for client_id in "1234":  # and never again: they are late after 0.4 s
        await running.beat(client_id)
    await until(is_alerted)
    for client_id in "1234":
        await running.beat(client_id)
        await running.http(
            "PUT",
            f"/clients/{client_id}/silence",
            b'{"seconds": 60}',
            Authorization=f"Bearer {OPERATOR}",
        )
    await until(is_over)
    assert prometheus.status is None


async def start_prometheus(
    spawn: Spawn, running: Running, folder: Path
) -> tuple[Process, int]:
    """One that scrapes, and looks at the rules, twice a second; and its port."""
    [port] = free_ports(1)
    folder.joinpath("token").write_text(f"{SCRAPER}\n")
    rules = re.sub(r"for: \w+", "for: 0s", RULES.read_text("utf-8"))
    folder.joinpath("heartbeat.rules.yml").write_text(rules)
    often = {"scrape_interval": "500ms", "scrape_timeout": "500ms"}
    job = {
        "job_name": "heartbeat",
        "authorization": {"credentials_file": "token"},
        "static_configs": [{"targets": [f"127.0.0.1:{running.port}"]}],
    }
    configuration = {
        "global": {**often, "evaluation_interval": "500ms"},
        "scrape_configs": [job],
        "rule_files": ["heartbeat.rules.yml"],
    }
    file = folder / "prometheus.yml"
    file.write_text(json.dumps(configuration))  # all JSON is YAML
    prometheus = spawn(
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    await prometheus.says("Server is ready to receive web requests")
    return prometheus, port


async def asked(running: Running, port: int, path: str) -> Any:
    """What Prometheus answers."""
    response = await patiently(
        treq.get(f"http://127.0.0.1:{port}{path}", agent=running.agent)
    )
    content = await patiently(response.content())
    return json.loads(content)["data"]
