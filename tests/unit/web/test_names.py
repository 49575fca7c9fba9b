"""Which Hosts and Origins are known, in each way to write them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from heartbeat_service.core.errors import Forbidden
from heartbeat_service.web.names import Names, Origin, machine_names

CONSOLE = "https://console.example"


class TestHosts(SynchronousTestCase):
    """Which Hosts are known."""

    def setUp(self) -> None:
        """A service with a name of its own."""
        self.names = Names(["Show.Local", "absolute.example."])

    def test_addresses_localhost_and_given_names_are_known(self) -> None:
        for host in (
            "127.0.0.1",
            "10.0.0.7:6969",
            "203.0.113.5:80",
            "127.0.0.1.",
            "[::1]",
            "[2001:DB8::7]:6969",
            "[::ffff:127.0.0.1]",
            "[fe80::1%25eth0]:1",
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "a.b.localhost:65535",
            "show.local",
            "SHOW.local.:6969",
            "absolute.example",
        ):
            with self.subTest(host=host):
                self.assertTrue(self.names.knows(host))

    def test_nothing_else_is_known(self) -> None:
        for host in (
            "",
            ".",
            ":80",
            "show",
            "show.local..",
            "show.local.evil.example",
            "evil.show.local",
            "evillocalhost",
            "localhost.evil",
            "127.0.0.1.evil.example",
            "127.1",
            "0x7f000001",
            "2130706433",
            "127.0.0.256",
            "::1",
            "[::1",
            "[::g]",
            "[show.local]",
            "show.local:",
            "show.local:x",
            "show.local:123456",
            "show.local:80:80",
            "u@show.local",
            "show.local/",
            "show.local\n",
            "show.loca\N{LATIN SMALL LETTER L WITH STROKE}",
            "localhost, localhost",
        ):
            with self.subTest(host=host):
                self.assertFalse(self.names.knows(host))

    def test_a_machine_is_found_by_its_name_short_or_long_and_by_mdns(self) -> None:
        self.assertEqual(machine_names("show"), {"show", "show.local"})
        self.assertEqual(
            machine_names("show.corp.example"),
            {"show.corp.example", "show", "show.local"},
        )


class TestOrigins(SynchronousTestCase):
    """Which Origins are a request's own."""

    def test_an_origin_is_at_its_own_host_by_http_and_by_https(self) -> None:
        for origin, host in (
            ("http://show", "show"),
            ("https://show", "show"),
            ("http://show:80", "show"),
            ("http://show", "show:80"),
            ("https://show", "show:443"),
            ("https://show:6969", "show:6969"),
            ("http://SHOW:6969", "show:6969"),
            ("http://show", "Show"),
            ("http://[::1]:1", "[0::1]:1"),
            ("http://[2001:db8::7]", "[2001:DB8::7]"),
            ("http://show.", "show."),
        ):
            with self.subTest(origin=origin, host=host):
                self.assertTrue(Origin.parse(origin).is_at(host))

    def test_an_origin_is_at_no_other_host(self) -> None:
        for origin, host in (
            ("http://show", ""),
            ("http://show", "show:443"),
            ("https://show", "show:80"),
            ("http://show:443", "show"),
            ("http://show:1", "show:2"),
            ("http://show:1", "show"),
            ("http://show", "show:1"),
            ("http://show", "show.evil.example"),
            ("http://show.evil.example", "show"),
            ("http://show.", "show"),
            ("http://[::1]", "[::2]"),
            ("http://show", "u@show"),
            ("capacitor://localhost", "localhost"),
        ):
            with self.subTest(origin=origin, host=host):
                self.assertFalse(Origin.parse(origin).is_at(host))

    def test_whatever_is_no_origin_is_refused(self) -> None:
        for text in (
            "",
            "null",
            "*",
            "show",
            "//show",
            "http:show",
            "http://",
            "http://:80",
            "http://show/",
            "http://show/path",
            "http://u@show",
            "http://show:port",
            "http://show:",
            "http://a http://b",
            "http://show\n",
            "http://*.example",
        ):
            with self.subTest(text=text), self.assertRaises(ValueError):
                Origin.parse(text)


class TestRequests(SynchronousTestCase):
    """Which requests pass."""

    def setUp(self) -> None:
        """A service that pages of one other site may use."""
        self.names = Names(["show"], [CONSOLE])

    def passes(self, **headers: str | list[str]) -> bool:
        """Whether a request with these headers does."""
        raw = {
            name.replace("_", "-"): [value] if isinstance(value, str) else value
            for name, value in headers.items()
        }
        try:
            self.names.check(Headers(raw))
        except Forbidden:
            return False
        return True

    def test_a_program_passes_by_any_name(self) -> None:
        hosts: list[str | list[str]] = ["show", "evil.example", "", []]
        for host in hosts:
            with self.subTest(host=host):
                self.assertTrue(self.passes(host=host))

    def test_a_page_passes_at_home_if_the_name_is_known(self) -> None:
        self.assertTrue(self.passes(host="show", origin="http://show"))
        self.assertFalse(self.passes(host="evil.example", origin="http://evil.example"))
        self.assertFalse(self.passes(host=["show"] * 2, origin="http://show"))
        self.assertFalse(self.passes(origin="http://show"))
        self.assertFalse(self.passes(host="show", origin=["http://show"] * 2))
        self.assertFalse(self.passes(host="show", origin="null"))

    def test_an_allowed_page_passes_if_the_name_is_known(self) -> None:
        for origin in (CONSOLE, "https://CONSOLE.example:443"):
            self.assertTrue(self.passes(host="show:1", origin=origin))
        self.assertFalse(self.passes(host="evil.example", origin=CONSOLE))
        self.assertFalse(self.passes(host="show", origin="http://console.example"))

    def test_cross_site_is_refused_but_of_an_allowed_page(self) -> None:
        site = "cross-site"
        self.assertFalse(self.passes(host="show", sec_fetch_site=site))
        self.assertFalse(
            self.passes(
                host="show", sec_fetch_site=["none", site], origin="http://show"
            )
        )
        self.assertTrue(self.passes(host="show", sec_fetch_site=site, origin=CONSOLE))
        for other in ("none", "same-origin", "same-site"):
            self.assertTrue(self.passes(host="show", sec_fetch_site=other))
