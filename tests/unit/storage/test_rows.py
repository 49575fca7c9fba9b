"""What is read is looked at: a row that makes no sense is told, and shown to nobody."""

from __future__ import annotations

import json

from heartbeat_service.core.changes import Lockout
from heartbeat_service.core.instances import Instances
from tests.unit.storage.store_suite import death, life, registration
from tests.unit.storage.test_sqlite import DatabaseTestCase

#: What no labels can be.
OF_LABELS = [
    ("labels", "''"),
    ("labels", "'null'"),
    ("labels", "'[]'"),
    ("labels", """'{"room":"a"'"""),
    ("labels", """'{"room":1}'"""),
    ("labels", """'{"room":""}'"""),
    ("labels", """'{"room":"a b"}'"""),
    ("labels", """'{"ro/om":"a"}'"""),
    ("labels", """printf('{"room":"%.65c"}', 'x')"""),
    ("labels", """printf('{"%.65c":"a"}', 'x')"""),
    ("labels", f"'{json.dumps(dict.fromkeys('123456789', 'a'))}'"),
]

#: What no operator is called.
OF_A_NAME = [("by_whom", "''"), ("by_whom", "printf('%.65c', 'x')")]

#: A column of the clients' table, and what somebody has written there.
OF_A_CLIENT = [
    ("registered_at", "1e300"),
    ("registered_at", "-1.0"),
    ("registered_at", "9e999"),
    ("registered_at", "253402300800.0"),
    ("client_id", "'a/b'"),
    ("client_id", "''"),
    ("client_id", "'..'"),
    ("client_id", "printf('%.65c', 'x')"),
    ("incarnation", "-1"),
    ("incarnation", "9223372036854775807"),
    ("sequence", "-1"),
    ("sequence", "9223372036854775807"),
    ("state", "'SLEEPING'"),
    ("state", "'running'"),
    ("reported_state", "''"),
    ("instance_id", "''"),
    ("instance_id", "printf('%.65c', 'x')"),
    ("former_instances", "''"),
    ("former_instances", "'{}'"),
    ("former_instances", "'[1]'"),
    ("former_instances", "'[\"\"]'"),
    ("former_instances", "'[\"a\"'"),
    ("former_instances", """'["1","2","3","4","5","6","7","8","9"]'"""),
    ("fuse", "0.0"),
    ("fuse", "-1.0"),
    ("fuse", "3601.0"),
    ("fuse", "9e999"),
    ("has_reported", "2"),
    ("beats", "-1"),
    ("longest_gap_seconds", "-0.5"),
    ("longest_gap_seconds", "9e999"),
    ("state_since", "-1.0"),
    ("state_since", "9e999"),
    ("silent_until", "-1.0"),
    ("silent_until", "253402300800.0"),
    *OF_LABELS,
]

OF_A_LIFE = [
    ("registered_at", "1e300"),
    ("ended_at", "-1e300"),
    ("incarnation", "-1"),
    ("reason", "'bored'"),
    ("last_state", "'SLEEPING'"),
    ("beats", "-1"),
    ("longest_gap_seconds", "9e999"),
    ("left_uncalibrated", "2"),
    *OF_LABELS,
    *OF_A_NAME,
]


class TestRowsThatMakeNoSense(DatabaseTestCase):
    def spoil(self, table: str, column: str, value: str) -> None:
        """Somebody else has written that."""
        self.sql(
            "PRAGMA ignore_check_constraints = 1",
            f"UPDATE {table} SET {column} = {value}"  # noqa: S608 - all from above
            " WHERE client_id = 'spoilt'",
        )

    def begin(self) -> None:
        """Two clients live, two are dead."""
        self.path.unlink(missing_ok=True)
        database = self.opened()
        database.write(
            [
                registration("good", 1),
                registration("spoilt", 2),
                death("dead", life(3), instances=Instances("a")),
            ]
        )
        database.close()

    def test_of_a_living_client(self) -> None:
        for column, value in OF_A_CLIENT:
            self.begin()
            self.spoil("clients", column, value)
            database = self.database()
            self.assert_trouble("clients, the row (", database.open)
            wrong = (
                "client ID"
                if column == "client_id"
                else column
                if column not in {"instance_id", "former_instances"}
                else ""
            )
            self.assert_trouble(wrong, database.open)
            database.close()
            self.sql("DELETE FROM clients WHERE incarnation <> 1")
            self.assertEqual(self.clients(database), ["good"], (column, value))
            database.close()

    def test_of_a_dead_client(self) -> None:
        for column, value in OF_A_CLIENT:
            if column in {"client_id", "instance_id", "former_instances"}:
                self.begin()
                self.sql("UPDATE dead_clients SET client_id = 'spoilt'")
                self.spoil("dead_clients", column, value)
                database = self.database()
                self.assert_trouble("dead_clients, the row (", database.open)
                database.close()

    def test_of_a_former_life_spoils_the_history_of_its_client_alone(self) -> None:
        for column, value in OF_A_LIFE:
            self.begin()
            database = self.opened()
            database.write([death("spoilt", life(2))])
            self.spoil("lives", column, value)
            self.assert_trouble("lives, the row (", database.former_lives, "spoilt")
            wrong = "`by`" if column == "by_whom" else column
            self.assert_trouble(wrong, database.former_lives, "spoilt")
            self.assertEqual(database.former_lives("dead"), [life(3)])
            database.write([registration("new", 4)])
            database.close()

    def test_of_the_last_life_of_one_who_went_leaves_out_that_one(self) -> None:
        for column, value in (*OF_A_LIFE, ("client_id", "'a/b'"), ("ended_at", "NULL")):
            self.begin()
            database = self.opened()
            database.write([death("spoilt", life(2))])
            database.close()
            self.spoil("lives", column, value)
            gone = self.database().open().gone
            self.assertEqual([one.client_id for one in gone], ["dead"], (column, value))

    def test_of_a_lockout(self) -> None:
        for column, value in (
            *[one for one in OF_A_CLIENT if one[0] == "client_id"],
            *(("until", "-1.0"), ("until", "9e999"), ("until", "1e300")),
            *OF_A_NAME,
        ):
            self.begin()
            database = self.opened()
            database.write([Lockout("spoilt", 2000.0)])
            database.close()
            self.spoil("lockouts", column, value)
            database = self.database()
            self.assert_trouble("lockouts, the row (", database.open)
            database.close()

    def test_of_the_service(self) -> None:
        self.begin()
        database = self.opened()
        self.sql("DELETE FROM service")
        self.assert_trouble("service", database.write, [registration("new", 4)])
        database.close()
        self.assert_trouble("service", database.open)

    def test_of_the_service_that_leaves_no_next_incarnation(self) -> None:
        self.begin()
        self.sql("UPDATE service SET last_incarnation = 9223372036854775807")
        database = self.database()
        self.assert_trouble("service, the row (", database.open)
        database.close()

    def test_long_text_is_not_told_whole(self) -> None:
        self.begin()
        self.spoil("clients", "client_id", "printf('%.9999c', 'x')")
        with self.assertRaises(Exception) as raised:
            self.database().open()
        self.assertLess(len(str(raised.exception)), 400)


class TestTables(DatabaseTestCase):
    def test_table_that_was_dropped_is_noticed_by_a_check(self) -> None:
        for table in ("clients", "dead_clients", "lives", "service"):
            self.path.unlink(missing_ok=True)
            database = self.opened()
            self.sql(f"DROP TABLE {table}")
            for _ in range(2):
                self.assert_trouble(table, database.write, [])
            database.close()

    def test_trigger_that_was_dropped_is_noticed_by_a_check(self) -> None:
        database = self.opened()
        self.sql("DROP TRIGGER life_went")
        self.assert_trouble("trigger life_went", database.write, [])

    def test_what_others_add_is_no_trouble(self) -> None:
        database = self.opened()
        self.sql("CREATE INDEX theirs ON lives (ended_at)", "ANALYZE")
        database.write([])
        database.write([death("1", life(1))])
        self.assertEqual(database.former_lives("1"), [life(1)])
