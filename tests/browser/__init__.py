"""The operators' page in a real browser, with the real service behind it."""

import pytest

# They assert for the tests.
pytest.register_assert_rewrite("tests.browser.looking", "tests.browser.service")
