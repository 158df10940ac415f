import pytest

from preprocessing import languages


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("It was the best of times, it was the worst of times.", "en"),
        ("Alle Menschen sind frei und gleich an Würde und Rechten geboren.", "de"),
        ("Tous les êtres humains naissent libres et égaux en dignité et en droits.", "fr"),
        ("Todos los seres humanos nacen libres e iguales en dignidad y derechos.", "es"),
        ("Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti di ogni persona.", "it"),
        ("Все люди рождаются свободными и равными в своем достоинстве и правах.", "ru"),
        ("人人生而自由，在尊严和权利上一律平等。", "han"),
        ("Όλοι οι άνθρωποι γεννιούνται ελεύθεροι", "greek"),
        ("lorem ipsum dolor sit amet consectetur", "latin"),
        ("123 + 456 = 579", "none"),
        ("", "none"),
    ],
)
def test_languages(text, language):
    assert languages.of(text) == language
