"""Which strings look like somebody's personal data."""

from __future__ import annotations

import pytest

from genesis_lab.domains.conversations.checks import kinds_in


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("My card is 4111-1111-1111-1111.", {"card"}),
        ("My card is 4111 1111 1111 1112.", set()),
        ("Mi IBAN es ES91 2100 0418 4502 0005 1332, gracias", {"iban"}),
        ("IBAN GB82WEST12345698765432", {"iban"}),
        ("IBAN ES91 2100 0418 4502 0005 1333", set()),
        ("write to maria.lopez+bank@correo.es", {"email"}),
        ("call me on +34 612 345 678", {"phone"}),
        ("my number is (020) 7946-0958 ok", {"phone"}),
        ("I paid 1,250.00 on 12/05/2024 and 3 more", set()),
        ("it ends in 4242 and expires 12/27", set()),
        ("order 0000000000000000", set()),
        ("@support please", set()),
    ],
)
def test_kinds(text: str, kinds: set[str]) -> None:
    assert kinds_in(text) == kinds
