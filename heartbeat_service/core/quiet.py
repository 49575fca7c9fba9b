"""What becomes of clients that don't beat: late, silent as planned, or held.

None of that changes a state, so operators are told by notices, and the store keeps
planned silences alone. Takes the clients that it is handed; who lives, and who dies, is
the registry's part.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from heartbeat_service.core.changes import SilenceEnd
from heartbeat_service.core.clock import Clock
from heartbeat_service.core.heartbeat import Stage
from heartbeat_service.core.local_client import LocalClient
from heartbeat_service.core.mass_loss import MassLoss
from heartbeat_service.core.notices import (
    Held,
    Late,
    Notice,
    Recovered,
    Silence,
)

_TOLD_LATE = (Stage.LATE, Stage.HELD)


def stage_of(client: LocalClient) -> Stage:
    """How far its timebomb has burnt; a planned silence is known of each client."""
    return Stage.SILENT if client.silent_until else client.heartbeat.stage


@frozen
class QuietClients:
    """What is done to a client between two beats that are far apart.

    :ivar clock: tells how time passes.
    :ivar wall_clock: seconds since the epoch, which a restart doesn't set back.
    :ivar tell: hears the notices.
    :ivar mass_loss: who is late, and who is held.
    """

    clock: Clock
    wall_clock: Callable[[], float]
    tell: Callable[[Notice], None]
    mass_loss: MassLoss

    def fall_late(self, client: LocalClient) -> None:
        """Its warning has come."""
        heartbeat = client.heartbeat
        heartbeat.fall_late()
        self.mass_loss.late.add(client.client_id)
        self.tell(
            client.notice(
                Late,
                seconds_since_heartbeat=heartbeat.seconds_since(),
                seconds_to_timebomb=heartbeat.seconds_left(),
                timebomb_seconds=heartbeat.fuse,
            )
        )

    def silence(self, client: LocalClient, seconds: float, by: str | None) -> None:
        """Let it be silent for so many seconds from now, at least for what is left."""
        if client.heartbeat.stage is Stage.ELSEWHERE:
            left = max(seconds, client.heartbeat.fuse)
        else:
            left = client.heartbeat.silence(seconds)
        client.silent_until = self.wall_clock() + left
        client.record(client.snapshot(ordered=True))
        self.tell(client.notice(Silence, seconds=left, by=by))
        self.mass_loss.forget(client.client_id)

    def take_silence_back(self, client: LocalClient, by: str | None) -> None:
        """From now on it is as if it had just beaten, if it was silent as planned."""
        if client.silent_until:
            if client.heartbeat.stage is Stage.SILENT:
                client.heartbeat.reset_timebomb(self.clock.seconds())
            client.silent_until, end = 0.0, SilenceEnd.OPERATOR
            client.record(client.snapshot(ordered=True, silence_end=end))
            self.end(client, Stage.SILENT, end, by)

    def resume_silence(self, client: LocalClient, until: float) -> None:
        """After a restart, let it be silent for what is left, if anything is.

        Of one that beats elsewhere, the clock there tells when that is over.

        :param until: when the silence ends, in seconds since the epoch.
        """
        left = until - self.wall_clock()
        if client.heartbeat.stage is Stage.ELSEWHERE:
            client.silent_until = until
        elif left > 0:
            client.silent_until = until
            client.heartbeat.silence(left)
        else:
            client.silent_until = 0.0

    def replace_silence(self, client: LocalClient, until: float) -> None:
        """Let it be silent as the store has it: another node was asked for that.

        :param until: when the silence ends, in seconds since the epoch; 0 for none.
        """
        if until == client.silent_until:
            return
        if client.heartbeat.stage is Stage.SILENT:
            client.heartbeat.reset_timebomb(self.clock.seconds())
        self.resume_silence(client, until)
        self.mass_loss.forget(client.client_id)

    def spares(self, client: LocalClient, alive: int) -> bool:
        """Whether a client whose fuse has run out is held; else it dies.

        :param alive: how many live, this one among them.
        """
        heartbeat, stage = client.heartbeat, client.heartbeat.stage
        if stage is Stage.HELD:
            self.mass_loss.expire()
            return False
        if not self.mass_loss.takes(client.client_id, alive):
            return False
        heartbeat.hold(self.mass_loss.seconds_left())
        if stage is Stage.SILENT:
            client.silent_until, end = 0.0, SilenceEnd.ENDED
            client.record(client.snapshot(silence_end=end))
            self.tell(client.notice(Silence, seconds=0.0, reason=end))
        since = heartbeat.seconds_since()
        self.tell(client.notice(Held, seconds_since_heartbeat=since))
        return True

    def end(
        self,
        client: LocalClient,
        stage: Stage,
        reason: SilenceEnd,
        by: str | None = None,
    ) -> None:
        """It is quiet no longer; call it once that is recorded.

        :param stage: how far its timebomb had burnt.
        :param reason: what has ended it.
        :param by: which operator did it, if one did.
        """
        if stage is Stage.SILENT:
            over = client.notice(Silence, seconds=0.0, reason=reason, by=by)
            self.tell(over)
        elif stage in _TOLD_LATE and reason is SilenceEnd.BEAT:
            self.tell(client.notice(Recovered))
        self.mass_loss.forget(client.client_id)
