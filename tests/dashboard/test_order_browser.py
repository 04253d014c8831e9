"""In a real browser: a model and a text are registered, a variant is planned as its fields change, and ordered."""

from __future__ import annotations

import pytest

from tests.api.conftest import write_corpus
from tests.dashboard.chromium import Chromium
from tests.dashboard.conftest import RunningDashboard
from tests.dashboard.rows import Account
from tests.dashboard.test_browser import enter
from tests.dashboard.test_pages import HOSTILE
from tests.models import tiny_llama

LAYERS = "document.querySelector('.layers').textContent"
ENTER = "\ue007"
JSON = "JSON.parse(document.querySelector('#f-json').value)"


@pytest.fixture
def page(window: Chromium, dashboard: RunningDashboard, account: Account) -> Chromium:
    enter(window, dashboard, account)
    window.problems()
    return window


def replace(page: Chromium, field: str, text: str) -> None:
    """As somebody does who selects all that stands there and types."""
    page.run(f"document.getElementById('f-{field}').select()")
    page.type(f"[id='f-{field}']", text)


def test_from_the_first_click_to_a_queued_job(page: Chromium, dashboard: RunningDashboard, account: Account) -> None:
    model = tiny_llama(dashboard.data / "models" / account.name)
    text = write_corpus(dashboard.corpora / f"{account.name}.jsonl", 200, 300)
    page.click("a[href='/base-models/new']")
    page.type("#f-path", str(model))
    page.click("button.primary")
    page.wait_for("location.pathname.startsWith('/base-models/base_')")
    page.open(f"{dashboard.url}/jobs")
    page.click("a[href='/corpora/new']")
    page.type("#f-name", "novel")
    page.type("#f-path", str(text))
    page.click("button.primary")
    page.wait_for("location.pathname.startsWith('/corpora/corpus_')")
    assert page.text(".excerpt").startswith("Document 0.")
    page.open(f"{dashboard.url}/jobs")
    page.click("a[href^='/variants/new']")
    # 4 layers of 2 KV heads and 48 neurons, of which the first is kept whole
    page.wait_for(f"{LAYERS}.includes('layers 1–3: 1 of 2 KV heads, 24 of 48 neurons')")
    assert page.run(JSON)["pruning"]["calibration"] == {"corpora": ["novel"]}
    replace(page, "recipe.pruning.ratio", "0.25")
    page.wait_for(f"{LAYERS}.includes('36 of 48 neurons')")
    page.wait_for(f"{JSON}.pruning.ratio === 0.25")
    assert page.run("document.activeElement.id") == "f-recipe.pruning.ratio"
    page.click("button[value=submit].primary")
    page.wait_for("location.pathname.startsWith('/jobs/job_')")
    assert page.text("#status .badge") == "queued"
    assert page.problems() == []


def test_faults_appear_at_their_fields_and_go(page: Chromium, dashboard: RunningDashboard, account: Account) -> None:
    account.base_model(HOSTILE)
    page.open(f"{dashboard.url}/variants/new")
    beside = "document.getElementById('p-{}').textContent"
    replace(page, "recipe.pruning.ratio", "1.2")
    page.wait_for(f"{beside.format('recipe.pruning.ratio')}.includes('less than 1')")
    assert page.run("document.getElementById('f-recipe.pruning.ratio').getAttribute('aria-invalid')") == "true"
    replace(page, "publish.repo_id", "somebody-else/model")
    page.wait_for(f"{beside.format('publish.repo_id')}.includes('belongs to somebody else')")
    assert page.text("#plan-state") == "2 things to change"
    replace(page, "recipe.pruning.ratio", "0.5")
    replace(page, "publish.repo_id", f"{account.name}/model")
    page.wait_for("document.querySelector('#plan-state').textContent === 'Planned.'")
    assert page.run(f"{beside.format('recipe.pruning.ratio')}") == ""
    assert not page.run("document.getElementById('f-recipe.pruning.ratio').hasAttribute('aria-invalid')")
    for field in ("recipe.pruning.calibration.corpora", "json"):
        replace(page, field, HOSTILE)
        page.wait_for(f"{beside.format(field)} !== ''")
    assert page.run("document.querySelectorAll('main img, main script').length") == 0
    # the browser itself tells of answers that refuse
    assert all("422" in problem for problem in page.problems())


def test_json_that_is_edited_fills_the_fields(page: Chromium, dashboard: RunningDashboard, account: Account) -> None:
    account.base_model()
    page.open(f"{dashboard.url}/variants/new")
    replace(page, "json", '{"pruning": {"ratio": 0.3, "criterion": "magnitude", "round_to": 64}}')
    page.wait_for("document.getElementById('f-recipe.pruning.round_to').value === '64'")
    page.wait_for(f"{LAYERS}.includes('1,088 of 1,536 neurons')")
    # and a field that is changed after that says what the JSON is
    replace(page, "recipe.pruning.ratio", "0.5")
    page.wait_for(f"{JSON}.pruning.ratio === 0.5")
    assert page.run(JSON) == {"pruning": {"ratio": 0.5, "criterion": "magnitude", "round_to": 64}}
    page.type("#f-gib", f"24{ENTER}")
    page.wait_for(f"{JSON}.pruning.ratio === 0.2")
    assert page.problems() == []


@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (1280, "dark")])
def test_no_page_of_an_order_scrolls_sideways(
    page: Chromium, dashboard: RunningDashboard, account: Account, width: int, scheme: str
) -> None:
    text = write_corpus(dashboard.corpora / f"{'long-' * 20}{account.name}.jsonl")
    base, corpus = account.base_model(HOSTILE), account.corpus("a-rather-long-name-" * 5, text)
    page.emulate(width, 844, scheme)
    for path in ("/variants/new", "/corpora", "/corpora/new", "/base-models/new", f"/corpora/{corpus}", "/jobs"):
        page.open(dashboard.url + path)
        page.run("document.querySelectorAll('details').forEach(each => { each.open = true })")
        assert page.run("document.documentElement.scrollWidth") <= width, path
    page.open(f"{dashboard.url}/base-models/{base}")
    assert page.run("document.documentElement.scrollWidth") <= width
    page.emulate(1280, 900)
