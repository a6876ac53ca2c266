from __future__ import annotations

import pytest

from genesis_lab.domains.language import detect


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Where is my card? I ordered it two weeks ago and it is not here.", "en"),
        ("¿Dónde está mi tarjeta? La pedí hace dos semanas y no ha llegado.", "es"),
        ("why was my card declined", "en"),
        ("necesito ayuda con una transferencia", "es"),
        ("Où est ma carte ? Je l'ai commandée il y a deux semaines et elle n'est pas là.", None),
        ("ok", None),
        ("", None),
        ("12345 !!!", None),
    ],
)
def test_language_is_told_apart(text, language):
    assert detect(text) == language
