"""Where etcd is, as ``--store`` says it: what is understood, and what is refused."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.storage.etcd.url import EtcdURL, parse


class TestEtcdURL(SynchronousTestCase):
    def assert_refused(self, url: str, *words: str) -> None:
        """It is refused with a sentence in which these words are."""
        with self.assertRaises(ValueError) as refused:
            parse(url)
        for word in words:
            self.assertIn(word, str(refused.exception))

    def test_all_that_can_be_said_is_understood(self) -> None:
        self.assertEqual(
            parse(
                "etcd://heart@a.example:2379,10.0.0.2:12379,[::1]:22379/fleets/north"
                "?ca=/etc/ca.pem&cert=me.pem&key=me.key&password-file=/run/pass%20word"
            ),
            EtcdURL(
                endpoints=("a.example:2379", "10.0.0.2:12379", "[::1]:22379"),
                prefix="fleets/north",
                user="heart",
                ca=Path("/etc/ca.pem"),
                cert=Path("me.pem"),
                key=Path("me.key"),
                password_file=Path("/run/pass word"),
            ),
        )

    def test_a_plus_in_the_name_of_a_file_is_one(self) -> None:
        self.assertEqual(parse("etcd://a?ca=/etc/c%2B+.pem").ca, Path("/etc/c++.pem"))

    def test_port_and_prefix_have_defaults(self) -> None:
        for url in ("etcd://a", "etcd://a/", "etcd://a:2379", "etcd://a//"):
            self.assertEqual(parse(url), EtcdURL(("a:2379",), "heartbeat"))
        self.assertEqual(parse("etcd://[fe80::1]").endpoints, ("[fe80::1]:2379",))

    def test_tls_is_spoken_if_a_certificate_is_named(self) -> None:
        self.assertFalse(parse("etcd://a").is_secure)
        self.assertTrue(parse("etcd://a?ca=c").is_secure)
        self.assertTrue(parse("etcd://a?cert=c&key=k").is_secure)

    def test_other_scheme_is_refused(self) -> None:
        for url in ("http://a", "etcd:a", "", "ETCD://a"):
            self.assert_refused(url, "etcd://")

    def test_what_is_no_endpoint_is_refused(self) -> None:
        for url in (
            "etcd://",
            "etcd:///prefix",
            "etcd://a,",
            "etcd://a b",
            "etcd://::1:2379",
            "etcd://[::1",
            "etcd://[x]:1",
            "etcd://ü",
        ):
            self.assert_refused(url, "HOST:PORT")

    def test_port_that_there_cannot_be_is_refused(self) -> None:
        for port in ("0", "65536", "", "x", "+1", "1_0", "²"):
            self.assert_refused(f"etcd://a:{port}", "1 to 65535", repr(port))
        self.assertEqual(parse("etcd://a:65535").endpoints, ("a:65535",))

    def test_password_in_the_url_is_refused_and_not_repeated(self) -> None:
        with self.assertRaises(ValueError) as refused:
            parse("etcd://heart:secret@a")
        self.assertIn("password-file=FILE", str(refused.exception))
        self.assertNotIn("secret", str(refused.exception))

    def test_what_needs_each_other_does_not_come_alone(self) -> None:
        self.assert_refused("etcd://heart@a", "password-file=FILE")
        self.assert_refused("etcd://a?password-file=f", "USER@")
        self.assert_refused("etcd://@a?password-file=f", "USER")
        self.assert_refused("etcd://a?cert=c", "key=FILE")
        self.assert_refused("etcd://a?key=k", "cert=FILE")

    def test_unknown_parameter_is_named_beside_those_that_there_are(self) -> None:
        self.assert_refused(
            "etcd://a?cacert=f", "'cacert'", "ca, cert, key and password-file"
        )

    def test_parameter_names_one_file(self) -> None:
        self.assert_refused("etcd://a?ca=", "ca=FILE")
        self.assert_refused("etcd://a?ca=1&ca=2", "ca=FILE")

    def test_prefix_is_printable(self) -> None:
        self.assertEqual(parse("etcd://a/%C3%BCber").prefix, "über")
        self.assert_refused("etcd://a/x%00y", "prefix")
