"""At the real service: a life with all that can happen to it."""

from __future__ import annotations

import time

import pytest_twisted

from tests.conformance.clients import Change
from tests.conformance.life import BOUND, SERVICE_FUSE, ServiceLife
from tests.conformance.scripted import CLIENT
from tests.integration.waiting import until


@pytest_twisted.ensureDeferred
async def test_it_follows_an_operator(service_life: ServiceLife) -> None:
    life = service_life
    now = life.changes[-1]
    for number, state in enumerate(("RUNNING", "CALIBRATED", "UNCALIBRATED"), 1):
        await life.orders("state", clientState=state)
        expected = Change(state, now.incarnation, now.sequence + number)
        assert await life.agrees() == expected
    assert len(life.news) == 3
    record = await life.running.get(f"/clients/{CLIENT}")
    assert record["instanceID"]


@pytest_twisted.ensureDeferred
async def test_it_lives_on_when_a_service_with_sqlite_is_restarted(
    service_life: ServiceLife,
) -> None:
    life = service_life
    await life.orders("state", clientState="RUNNING")
    now = await life.agrees()
    await life.restarts()
    await life.orders("state", clientState="CALIBRATED")
    assert await life.agrees() == Change(
        "CALIBRATED", now.incarnation, now.sequence + 1
    )
    assert len(life.news) == 2


@pytest_twisted.ensureDeferred
async def test_it_begins_anew_when_a_service_without_a_file_is_restarted(
    service_life: ServiceLife,
) -> None:
    life = service_life
    await life.orders("state", clientState="RUNNING")
    former = await life.agrees()
    await life.restarts(store="memory:")
    await until(lambda: len(life.news) > 1, BOUND)
    present = await life.agrees()
    assert (present.state, present.sequence) == ("UNCALIBRATED", 1)
    assert present.incarnation > former.incarnation
    await life.restarts()
    await until(lambda: len(life.news) > 2, BOUND)
    await life.agrees()


@pytest_twisted.ensureDeferred
async def test_a_kicked_one_is_registered_anew(service_life: ServiceLife) -> None:
    life, former = service_life, service_life.changes[-1]
    await life.running.kick(CLIENT)
    await until(lambda: life.changes[-1].incarnation > former.incarnation, BOUND)
    present = await life.agrees()
    assert (present.state, present.sequence) == ("UNCALIBRATED", 1)


@pytest_twisted.ensureDeferred
async def test_a_new_life_of_its_own_is_followed(service_life: ServiceLife) -> None:
    life = service_life
    await life.orders("state", clientState="RUNNING")
    former = await life.agrees()
    record = await life.running.get(f"/clients/{CLIENT}")

    async def has_reported() -> bool:
        known = await life.running.get(f"/clients/{CLIENT}")
        return bool(known["reportedState"] == "RUNNING")

    await until(has_reported, BOUND)
    # As a beat of its own that comes late, from before it had read an answer.
    await life.running.beat(CLIENT, "DISCONNECTED", instanceID=record["instanceID"])
    await until(lambda: life.changes[-1].incarnation > former.incarnation, BOUND)
    present = await life.agrees()
    assert (present.state, present.sequence) == ("UNCALIBRATED", 1)


@pytest_twisted.ensureDeferred
async def test_a_stall_of_the_service_of_two_fuses_is_outlived(
    service_life: ServiceLife,
) -> None:
    life = service_life
    await life.orders("state", clientState="RUNNING")
    now = await life.agrees()
    time.sleep(2 * SERVICE_FUSE)  # the service runs in this very process
    await life.orders("state", clientState="CALIBRATED")
    later = await life.agrees()
    assert later == Change("CALIBRATED", now.incarnation, now.sequence + 1)
    assert len(life.news) == 2


@pytest_twisted.ensureDeferred
async def test_an_operator_locks_it_out_and_lets_it_in(
    service_life: ServiceLife,
) -> None:
    life, former = service_life, service_life.changes[-1]
    await life.orders("lockout", seconds=600)
    await life.complains("(LOCKED_OUT)")
    assert await life.record() is None
    await life.orders("lockout", seconds=0)
    await until(lambda: life.changes[-1].incarnation > former.incarnation, BOUND)
    present = await life.agrees()
    assert (present.state, present.sequence) == ("UNCALIBRATED", 1)


@pytest_twisted.ensureDeferred
async def test_its_goodbye_is_taken(service_life: ServiceLife) -> None:
    life, former = service_life, service_life.changes[-1]
    assert await life.program.ends("TERM") == 0
    assert await life.record() is None
    (gone,) = (await life.running.get("/clients?gone=true&limit=1"))["clients"]
    assert gone["reason"] == "goodbye"
    lives = (await life.running.get(f"/clients/{CLIENT}/history"))["lives"]
    assert lives[0]["incarnation"] == former.incarnation


@pytest_twisted.ensureDeferred
async def test_one_whose_id_another_process_has_taken_stops_and_leaves_it_alone(
    service_life: ServiceLife,
) -> None:
    life = service_life
    taken = await life.running.beat(CLIENT, instanceID="another", timebombSeconds=60)
    await until(lambda: life.program.status is not None, BOUND)
    assert life.program.status == 1
    assert [line for line in life.complaints if line.startswith("stopped: ")]
    record = await life.running.get(f"/clients/{CLIENT}")
    assert (record["instanceID"], record["incarnation"]) == (
        "another",
        taken["incarnation"],
    )
