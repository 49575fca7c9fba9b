"""``GET /metrics``: the plain numbers that each part keeps, in Prometheus' text format.

They are read when somebody scrapes, and at no other time. The names are stable; each is
told in ``docs/metrics.md``. Nothing is global: the one collector that reads them has a
registry of its own. Knows the engine and the site;
of ZeroMQ it knows what it reads of it alone.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from attrs import define, field
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from typing_extensions import override

from heartbeat_service import __version__
from heartbeat_service.engine.counters import Histogram
from heartbeat_service.engine.engine import Engine
from heartbeat_service.host.descriptors import allowed
from heartbeat_service.host.process import memory, open_descriptors, started_at
from heartbeat_service.protocol.messages import HeartbeatMessage
from heartbeat_service.web.events import EventStreams
from heartbeat_service.web.problem import STATUS
from heartbeat_service.web.site import HeartbeatSite

#: What is sent: any Prometheus reads it.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: What the site has answered accepted heartbeats with: the route, and the status.
BEATS = "heartbeat", 200

#: The route of what no route was found for.
NO_ROUTE = "other", "other"


class Requests(Protocol):
    """What is read of the ROUTER."""

    beats: int
    others: dict[Any, int]
    errors: int
    dropped: int


class Publications(Protocol):
    """What is read of the PUB socket."""

    published: int


class Peers(Protocol):
    """What is read of the limit of ZeroMQ's peers."""

    most: int
    turned_away: int

    def __len__(self) -> int:
        """How many there are."""


@define(eq=False)
class Metrics(Collector):
    """Reads all that is counted.

    :ivar routes: method and path of each of the site's routes.
    """

    engine: Engine
    requests: Requests
    publications: Publications
    peers: Peers
    site: HeartbeatSite
    streams: EventStreams
    routes: Mapping[str, tuple[str, str]]
    _registry: CollectorRegistry = field(init=False)
    _started_at: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._started_at = started_at()

    def text(self) -> bytes:
        """All of it, as it is now."""
        return generate_latest(self._registry)

    @override
    def collect(self) -> Iterator[Metric]:
        yield from self._service()
        yield from self._clients()
        yield from self._nodes()
        yield from self._rhythm()
        yield from self._refusals()
        yield from self._reactor()
        yield from self._store()
        yield from self._zeromq()
        yield from self._http()
        yield from self._events()
        yield from self._process()

    def _service(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(
            "heartbeat_build_info",
            "Always 1: which version runs, on which Python.",
            labels=["version", "python_version"],
        )
        build.add_metric([__version__, platform.python_version()], 1)
        yield build
        yield _gauge(
            "heartbeat_ready",
            "Whether the service knows its clients: 1, or 0 while it starts or stops.",
            self.engine.opened,
        )

    def _clients(self) -> Iterator[Metric]:
        counters, registry = self.engine.counters, self.engine.registry
        yield _gauges(
            "heartbeat_clients",
            "Clients that live, as far as the store knows.",
            "state",
            ((state.value, n) for state, n in counters.states.items()),
        )
        yield _gauge(
            "heartbeat_clients_limit",
            "How many clients may live at once: --max-clients.",
            registry.max_clients,
        )
        yield _gauge(
            "heartbeat_late_clients",
            "Clients that are late, those that are held among them.",
            len(registry.mass_loss.late),
        )
        yield _gauge(
            "heartbeat_held_clients",
            "Clients whose fuse has run out, and that a mass loss keeps alive.",
            len(registry.mass_loss.held),
        )
        yield _gauge(
            "heartbeat_silent_clients",
            "Clients with a planned silence.",
            len(counters.silent),
        )
        yield _gauge(
            "heartbeat_locked_out_clients",
            "Client IDs that operators keep out.",
            len(registry.lockouts),
        )
        yield _gauge(
            "heartbeat_flapping_clients",
            "Client IDs that died three times by timebomb in ten minutes.",
            self.engine.deaths.flapping(),
        )
        yield _gauge(
            "heartbeat_mass_loss_active",
            "Whether nobody dies now, as so many are late: 1 or 0.",
            registry.mass_loss.hold is not None,
        )
        yield _counters(
            "heartbeat_changes_total",
            "Changes of clients that are durable, by the contract's reason.",
            "reason",
            ((reason.value, n) for reason, n in counters.changes.items()),
        )
        yield _counter(
            "heartbeat_late_total", "How often a client became late.", counters.late
        )
        yield _counter(
            "heartbeat_mass_losses_total",
            "How often so many were late that nobody died of it.",
            counters.mass_losses,
        )

    def _nodes(self) -> Iterator[Metric]:
        engine, counters, nodes = self.engine, self.engine.counters, self.engine.nodes
        yield _gauge(
            "heartbeat_nodes",
            "Nodes that are this service, as this one knows; 1 if it is alone.",
            len(nodes.all()),
        )
        yield _gauge(
            "heartbeat_clients_here",
            "Clients that beat at this node.",
            nodes.clients_at(nodes.own.session),
        )
        yield _gauge(
            "heartbeat_in_touch",
            "Whether etcd answers this node: 1 or 0; always 1 if it is alone.",
            engine.standing.in_touch,
        )
        yield _counter(
            "heartbeat_moves_total",
            "Clients of other nodes that came to this one.",
            counters.moved,
        )
        yield _counter(
            "heartbeat_takeovers_total",
            "Clients that this node took over from nodes that were gone.",
            counters.taken_over,
        )
        yield _counter(
            "heartbeat_commits_refused_total",
            "Changes of a client that another node was first with.",
            counters.refused,
        )

    def _refusals(self) -> Iterator[Metric]:
        counts = self.engine.dispatcher.refusals.counts
        yield _counters(
            "heartbeat_refusals_total",
            "Requests that were refused, by any transport, by the contract's code.",
            "code",
            ((code, counts[code]) for code in STATUS),
        )

    def _rhythm(self) -> Iterator[Metric]:
        counters = self.engine.counters
        yield _counters(
            "heartbeat_beats_total",
            "Heartbeats that were accepted.",
            "transport",
            (
                ("http", self.site.answers[BEATS] + self.site.answered_at_once),
                ("zeromq", self.requests.beats),
            ),
        )
        yield _histogram(
            "heartbeat_beat_gap_seconds",
            "Seconds between two beats of a client, of punctual clients an estimate.",
            counters.gaps,
        )
        yield _histogram(
            "heartbeat_timebomb_lateness_seconds",
            "Seconds from the end of a fuse until the death was told.",
            counters.lateness,
        )

    def _reactor(self) -> Iterator[Metric]:
        counters = self.engine.counters
        yield _counter(
            "heartbeat_stalls_total",
            "How often the process was kept from listening for a second or more.",
            counters.stalls,
        )
        yield _counter(
            "heartbeat_stalled_seconds_total",
            "Seconds of these stalls, in which no timebomb has burnt.",
            counters.stalled,
        )
        yield _histogram(
            "heartbeat_reactor_lag_seconds",
            "Seconds by which the reactor was late for a call of the clock's.",
            counters.lags,
        )

    def _store(self) -> Iterator[Metric]:
        counters, journal = self.engine.counters, self.engine.journal
        yield _histogram(
            "heartbeat_commit_duration_seconds",
            "Seconds from handing facts to the store until they were durable.",
            counters.commits,
        )
        yield _histogram(
            "heartbeat_commit_batch_facts",
            "Facts in one commit; none where it was only asked if the store can write.",
            counters.batches,
        )
        yield _gauge(
            "heartbeat_store_pending_facts",
            "Facts that wait for the store.",
            journal.pending,
        )
        yield _gauge(
            "heartbeat_store_trouble",
            "Whether the store can't keep anything now: 1 or 0.",
            journal.trouble is not None,
        )
        yield _counter(
            "heartbeat_store_troubles_total",
            "How often the store was found to be in trouble.",
            counters.troubles,
        )

    def _zeromq(self) -> Iterator[Metric]:
        requests, peers = self.requests, self.peers
        yield _counters(
            "heartbeat_zeromq_requests_total",
            "Requests by ZeroMQ that were not refused at once, by message type.",
            "type",
            (
                (HeartbeatMessage.message_type, requests.beats),
                *((kind.message_type, n) for kind, n in requests.others.items()),
            ),
        )
        yield _counter(
            "heartbeat_zeromq_errors_total",
            "Requests by ZeroMQ that were answered with an Error.",
            requests.errors,
        )
        yield _counter(
            "heartbeat_zeromq_replies_dropped_total",
            "Replies whose client had left, or didn't read.",
            requests.dropped,
        )
        yield _counter(
            "heartbeat_publications_total",
            "Changes that were published, whoever had subscribed.",
            self.publications.published,
        )
        yield _counter(
            "heartbeat_zeromq_peers_turned_away_total",
            "Connections by ZeroMQ that there was no room for.",
            peers.turned_away,
        )
        yield _gauge(
            "heartbeat_zeromq_peers",
            "Connections by ZeroMQ, to both of its sockets.",
            len(peers),
        )
        yield _gauge(
            "heartbeat_zeromq_peers_limit",
            "How many connections by ZeroMQ there may be.",
            peers.most,
        )

    def _http(self) -> Iterator[Metric]:
        site = self.site
        requests = CounterMetricFamily(
            "heartbeat_http_requests_total",
            "Requests by HTTP that came in whole and were answered.",
            labels=["method", "route", "status"],
        )
        answers = site.answers + Counter({BEATS: site.answered_at_once})
        for (name, status), count in sorted(answers.items()):
            method, path = self.routes.get(name, NO_ROUTE)
            requests.add_metric([method, path, f"{status:d}"], count)
        yield requests
        yield _gauge(
            "heartbeat_http_connections",
            "Connections by HTTP.",
            len(site.channels),
        )
        yield _gauge(
            "heartbeat_http_connections_limit",
            "How many connections by HTTP there may be.",
            site.max_connections,
        )
        yield _counters(
            "heartbeat_http_connections_ended_total",
            "Connections by HTTP that were ended for want of room: displaced by a "
            "newcomer, turned away, or shed as too much was kept for them.",
            "reason",
            (
                ("displaced", site.displaced),
                ("turned_away", site.turned_away),
                ("shed", site.shed),
            ),
        )

    def _events(self) -> Iterator[Metric]:
        streams = self.streams
        yield _gauges(
            "heartbeat_event_streams",
            "Event streams that are read, by operators and by clients.",
            "reader",
            streams.readers().items(),
        )
        yield _gauge(
            "heartbeat_event_streams_limit",
            "How many event streams operators may read, and clients as many.",
            streams.most,
        )
        yield _counter(
            "heartbeat_event_streams_cut_off_total",
            "Event streams that were ended as their readers were too slow.",
            streams.cut_off,
        )
        yield _counter(
            "heartbeat_events_total",
            "Events that happened, whoever reads them.",
            self.engine.events.last,
        )

    def _process(self) -> Iterator[Metric]:
        """Under the names that each program has them by."""
        addressed, resident = memory()
        yield _counter(
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            time.process_time(),
        )
        yield _gauge(
            "process_virtual_memory_bytes", "Virtual memory size in bytes.", addressed
        )
        yield _gauge(
            "process_resident_memory_bytes", "Resident memory size in bytes.", resident
        )
        yield _gauge(
            "process_open_fds", "Number of open file descriptors.", open_descriptors()
        )
        yield _gauge(
            "process_max_fds", "Maximum number of open file descriptors.", allowed()
        )
        yield _gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            self._started_at,
        )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value)


def _gauges(
    name: str, text: str, label: str, values: Iterable[tuple[str, float]]
) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in values:
        family.add_metric([value], number)
    return family


def _counters(
    name: str, text: str, label: str, values: Iterable[tuple[str, float]]
) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, number in values:
        family.add_metric([value], number)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    buckets = [(floatToGoString(bound), number) for bound, number in histogram]
    return HistogramMetricFamily(name, text, buckets, histogram.total)
