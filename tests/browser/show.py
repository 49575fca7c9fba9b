"""Shows as tests look at them: who is there, in which state, and what is wrong.

Those of a few rooms are the ones of the designer's sketch. Knows no browser.
"""

from __future__ import annotations

from bench.drivers import heartbeat
from tests.browser.service import Fleet, Service, until

ROOMS = {
    **{f"headset-{number:02}": "A" for number in range(1, 13)},
    **{f"headset-{number:02}": "B" for number in range(13, 23)},
    **{f"headset-{number:02}": "C" for number in range(23, 27)},
    **{f"kiosk-{number}": "C" for number in range(1, 5)},
}
UNCALIBRATED = ("headset-09", "headset-20", "headset-30")
CALIBRATED = ("headset-21", "headset-22")
LATE = ("headset-04", "headset-09", "headset-16")
FLAPPING, LOST, OUT, DIFFERS, SILENT = (
    "headset-14", "headset-11", "headset-18", "headset-21", "headset-25",
)  # fmt: skip
USUAL = tuple(
    name for name in ROOMS if name not in {*LATE, FLAPPING, LOST, OUT, DIFFERS}
)

#: In seconds: who beats that seldom is late most of the time, and never dies.
INTERVAL, LATE_FUSE, LATE_EVERY = 1.5, 10.0, 8.4

#: Options of a service for it.
A_SHOW = ("--store", "memory:", "--interval", str(INTERVAL), "--timebomb", "60")


def labels(name: str) -> dict[str, str]:
    """Where a client is, and what it is."""
    number = int(name.rpartition("-")[2])
    model = "nuc-13" if "kiosk" in name else ("quest-3", "pico-4")[number % 3 % 2]
    return {
        "room": ROOMS.get(name, "C" if "kiosk" in name else "B"),
        "model": model,
        "build": ("2.3.1", "2.3.1", "2.2.9")[number % 3],
    }


def values(name: str) -> dict[str, object]:
    """What a client tells of itself."""
    number = int(name.rpartition("-")[2])
    return {
        "battery": round(0.95 - number / 50, 2), "fps": 71.8, "scene": "lobby",
        "controllers": {"left": 0.8, "right": 0.75},
    }  # fmt: skip


def begin(service: Service) -> Fleet:
    """A show that runs, with a bit of everything that may be wrong with it."""
    fleet = Fleet(service)
    for name in (FLAPPING, LOST, "kiosk-7"):
        service.die(name, labels=labels(name), times=3 if name == FLAPPING else 1)
    for name in (*USUAL, FLAPPING, OUT, "headset-31"):
        fleet.add(name, labels=labels(name), values=values(name))
    for at, name in enumerate(LATE):
        # One after the other: there is always somebody who is late.
        fleet.add(
            name, every=LATE_EVERY, second=LATE_EVERY * (1 - at / 4),
            timebombSeconds=LATE_FUSE, labels=labels(name),
        )  # fmt: skip
    fleet.add(DIFFERS, labels=labels(DIFFERS), reports="UNCALIBRATED")
    states = service.states
    service.steer("CALIBRATED", *CALIBRATED)
    idle = {*UNCALIBRATED, *CALIBRATED}
    service.steer("RUNNING", *(name for name in states if name not in idle))
    fleet.hush(SILENT, "headset-31")
    order = {"clientIDs": [SILENT], "seconds": 900}
    service.ask("PUT", "/clients/silence", order)
    service.say("Goodbye", "headset-31")
    service.ask("PUT", f"/clients/{OUT}/lockout", {"seconds": 600})
    return fleet


#: Of a service that holds those who are lost together.
A_MASS_LOSS = (
    "--store", "memory:", "--interval", "1", "--timebomb", "20",
    "--mass-loss", "0.3", "--mass-loss-hold", "120",
)  # fmt: skip


def lose_half(service: Service) -> Fleet:
    """A show in which a network fails: some are held, others late."""
    fleet = Fleet(service)
    held = []
    for at, name in enumerate(ROOMS):
        if at % 3 == 0:  # late most of the time, one after the other
            more = {"every": 7.2, "second": 7.2 - at % 5, "timebombSeconds": 8}
        elif at % 3 == 1:
            more = {"every": 0.6, "timebombSeconds": 2.5}
            held.append(name)
        else:
            more = {"every": 0.6}
        fleet.add(name, labels=labels(name), **more)
    service.steer("RUNNING", *ROOMS)
    fleet.hush(*held)
    until(lambda: service.ask("GET", "/mass-loss")["hold"] is not None)
    return fleet


#: Of a service for a crowd: who is late of it has a short fuse.
A_CROWD = ("--store", "memory:", "--interval", "100", "--timebomb", "600")


def crowd(service: Service, count: int, rooms: int = 12) -> Fleet:
    """Many that are registered, a few of them late or flapping, some gone."""

    def beat(number: int) -> bytes:
        where = {"room": f"{number * rooms // count + 1:02}", "model": "quest-3"}
        return heartbeat(number, labels=where, clientState="DISCONNECTED")

    service.flood(beat(number) for number in range(count))
    names = [f"headset-{number:06}" for number in range(count)]
    service.steer("CALIBRATED", *names[: count // 10 * 9])
    service.steer("RUNNING", *names[: count // 10 * 8])
    service.die(*names[30:36], times=3, labels={"room": "01"})
    service.die(*names[700:720], labels={"room": "05"})
    service.beat(*names[30:36], labels={"room": "01"})
    fleet = Fleet(service)
    for number in range(24):
        name = names[number * count // 24 + 3]
        room = {"room": f"{number * rooms // 24 + 1:02}"}
        # Late for the last quarter of its fuse, one after the other.
        more = {"timebombSeconds": 12, "labels": room}
        fleet.add(name, every=11.5, second=11.5 - number / 2.5, **more)
    return fleet
