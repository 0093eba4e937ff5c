from __future__ import annotations

import pytest

from decision.errors import FieldError
from pipelines.settings import LoopSettings, Settings, check_loop_name, list_loops, load_loop, load_settings, parse_loop


def test_settings_without_environment_are_the_defaults() -> None:
    assert load_settings({}) == Settings()


def test_settings_environment_overrides_defaults_and_arguments_override_both() -> None:
    settings = load_settings({"DECISION_PORT": "9000", "DECISION_HOME": "a"}, home="b", log=None)
    assert (settings.port, settings.home, settings.log) == (9000, "b", "local:")


def test_settings_unknown_variable_names_itself_and_the_nearest() -> None:
    with pytest.raises(FieldError, match=r"DECISION_PROT.*DECISION_PORT"):
        load_settings({"DECISION_PROT": "1"})


def test_settings_value_that_does_not_fit_names_the_field() -> None:
    with pytest.raises(FieldError, match="port") as caught:
        load_settings({"DECISION_PORT": "99999"})
    assert caught.value.field == "port"
    assert caught.value.got == "'99999'"


ISSUER, AUDIENCE = "https://login.example.com/realms/main", "decision"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"oidc_issuer": ISSUER}, "oidc_audience"),
        ({"oidc_audience": AUDIENCE}, "oidc_issuer"),
        ({"oidc_issuer": "http://login.example.com", "oidc_audience": AUDIENCE}, "oidc_issuer"),
        ({"oidc_issuer": "http://127.0.0.1.example.com", "oidc_audience": AUDIENCE}, "oidc_issuer"),
        ({"oidc_issuer": "http://localhost:80@example.com", "oidc_audience": AUDIENCE}, "oidc_issuer"),
        ({"oidc_issuer": "https://user:secret@example.com", "oidc_audience": AUDIENCE}, "oidc_issuer"),
        ({"oidc_issuer": f"{ISSUER}?x=1", "oidc_audience": AUDIENCE}, "oidc_issuer"),
        ({"oidc_issuer": "file:///etc/passwd", "oidc_audience": AUDIENCE}, "oidc_issuer"),
        ({"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, "oidc_roles_claim": ""}, "oidc_roles_claim"),
        ({"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, "oidc_roles_prefix": ""}, "oidc_roles_prefix"),
        ({"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, "oidc_per_day": "-1"}, "oidc_per_day"),
    ],
)
def test_an_issuer_has_an_audience_and_an_address_that_nobody_else_can_answer_at(
    settings: dict[str, str], field: str
) -> None:
    with pytest.raises(FieldError) as caught:
        load_settings({f"DECISION_{name.upper()}": text for name, text in settings.items()})
    assert caught.value.field == field


@pytest.mark.parametrize("issuer", [ISSUER, "http://localhost:9400", "http://127.0.0.1:9400/x", "http://[::1]:9400"])
def test_an_issuer_is_at_https_or_on_this_machine(issuer: str) -> None:
    assert load_settings({}, oidc_issuer=issuer, oidc_audience=AUDIENCE).oidc_issuer == issuer


def test_loop_file_with_only_a_name_is_the_defaults() -> None:
    assert parse_loop("", "news", {}) == LoopSettings(name="news")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[reward]\nwindow = 3", "reward.window"),
        ("[reward]\nwindow_s = -3", "reward.window_s"),
        ("[reward]\naggregation = 'median'", "reward.aggregation"),
        ("[reward]\ndefault = 7\nmaximum = 1", "reward.default"),
        ("[reward]\nminimum = 2\nmaximum = 1", "reward.maximum"),
        ("polcy = 1", "polcy"),
        ("mode = 'offline'", "mode"),
        ("name = 'other'", "name"),
        ("[gate]\nalpha = 'small'", "gate.alpha"),
        ("= 3", "line 1"),
    ],
)
def test_loop_file_error_names_the_field(text: str, field: str) -> None:
    with pytest.raises(FieldError) as caught:
        parse_loop(text, "news", {})
    assert caught.value.field == field


def test_loop_unknown_key_names_the_nearest_right_one() -> None:
    with pytest.raises(FieldError, match=r"'reward\.window_s'"):
        parse_loop("[reward]\nwindow_seconds = 3", "news", {})


def test_loop_environment_overrides_the_file() -> None:
    environ = {"DECISION_LOOP_MY_NEWS__REWARD__WINDOW_S": "5", "DECISION_LOOP_MY_NEWS__MODE": "apprentice"}
    loop = parse_loop("[reward]\nwindow_s = 60", "my-news", environ)
    assert (loop.reward.window_s, loop.mode) == (5, "apprentice")


def test_loop_names_cannot_leave_their_folder() -> None:
    for name in ("", "../x", "A", "a/b", "a" * 65, ".hidden"):
        with pytest.raises(FieldError):
            check_loop_name(name)


def test_unknown_loop_names_the_known_ones(tmp_path) -> None:
    settings = load_settings({}, home=str(tmp_path))
    path = settings.loop_path("news")
    path.parent.mkdir(parents=True)
    path.write_text("")
    assert list_loops(settings) == ["news"]
    assert load_loop(settings, "news", {}).name == "news"
    with pytest.raises(FieldError, match="news"):
        load_loop(settings, "sport", {})


def test_a_key_of_an_earlier_release_still_reads() -> None:
    former = parse_loop("[training]\ncandidates = [{decay = 1.0}]\n", "news", {})
    assert former == parse_loop("[training]\nvariants = [{decay = 1.0}]\n", "news", {})
    assert len(former.training.variants) == 1
