"""A variant's page: its result, what pruning left, the recipe as it was used, and how it is deleted."""

from __future__ import annotations

import re

import httpx
import pytest
from huggingface_hub import HfApi

from publisher.architecture.masks_file import FILE_NAME as MASKS
from publisher.keys.scopes import Scope
from publisher.recipe import Recipe
from publisher.store import keys
from publisher.store.labels import set_labels
from publisher.store.models import Variant
from tests.dashboard.conftest import RunningDashboard, csrf, sign_in
from tests.dashboard.results import BILL, kept, masks, measured, publish
from tests.dashboard.rows import RECIPE, Account, Work
from tests.dashboard.test_pages import HOSTILE, look
from tests.manifest import contents


def headings(page: str) -> list[str]:
    return re.findall(r"<h2[^>]*>([^<]+)</h2>", page)


def test_the_result_comes_first_then_how_to_use_it(account: Account, browser: httpx.Client) -> None:
    page = look(browser, f"/variants/{account.job().start().succeed(measured()).variant_id}")
    order = [
        "Certificate: adapters carry over",
        "Use it",
        "What the certificate measured",
        "What pruning left",
        "Files",
    ]
    assert [heading for heading in headings(page) if heading in order] == order
    assert page.index("<b>57 % of the gain</b>") < page.index("Certificate: adapters")
    assert "515.1 MiB → " in page  # memory to train, on the base model and on the checkpoint


def test_a_variant_without_a_certificate_says_so(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().succeed(measured(evaluation=None))
    assert "No certificate: its recipe asks for no probe" in look(browser, f"/variants/{work.variant_id}")


def test_masks_in_the_embedded_hub_are_drawn(
    dashboard: RunningDashboard, account: Account, browser: httpx.Client
) -> None:
    work = publish(dashboard, account, {MASKS: masks()})
    page = look(browser, f"/variants/{work.variant_id}")
    assert "Kept attention heads by layer. 24 of 30 layers lost some" in page
    least = min((len(indices), layer) for (layer, unit), indices in kept().items() if unit == "neurons")
    assert f"layer {least[1]} most, with {100 * least[0] / 1536:.0f} % left" in page
    assert len(re.findall(r'class="cells"', page)) > 4
    assert re.search(r'<th scope="row">27</th><td data-label="attention heads" class="number">1 of 3 ', page)
    assert "which this page does not ask" not in page


def test_masks_elsewhere_are_said_to_be(account: Account, browser: httpx.Client) -> None:
    page = look(browser, f"/variants/{account.job().start().succeed(measured()).variant_id}")
    assert "stands in pruning_masks.safetensors at https://hub.example, which this page does not ask." in page
    assert 'class="cells"' not in page
    assert "1 of 3 " in page  # the manifest's own numbers


@pytest.mark.parametrize("content", [b"no masks", masks()[:-4], b"\xff" * 100], ids=["text", "cut short", "noise"])
def test_masks_that_cannot_be_read_leave_a_page(
    dashboard: RunningDashboard, account: Account, browser: httpx.Client, content: bytes
) -> None:
    work = publish(dashboard, account, {MASKS: content})
    assert "Which ones they are cannot be read: pruning_masks" in look(browser, f"/variants/{work.variant_id}")


def test_pruning_of_single_weights_has_no_map(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().succeed(measured(widths=[contents.WIDTH] * 30))
    assert "Every layer kept all of its heads and neurons" in look(browser, f"/variants/{work.variant_id}")


def test_the_recipe_says_what_was_used(account: Account, browser: httpx.Client) -> None:
    work = account.job()
    page = fields(look(browser, f"/variants/{work.variant_id}"))
    assert page["tokens"] == "131,072"
    assert page["gradient matching"] == "automatic"
    work.start().succeed(measured())
    page = fields(look(browser, f"/variants/{work.variant_id}"))
    assert page["tokens"] == "131,072 (40,960 used)"
    assert page["gradient matching"] == "automatic (1 used)"
    assert page["quantization aware"] == "automatic (training: yes)"
    assert page["reconstruction tokens"] == "131,072 (65,536 used)"
    assert page["stride"] == "automatic (256 used)"
    assert page["ratio"] == "0.65 (37.5 % of all parameters removed)"
    assert page["teacher top k"] == "the whole vocabulary"


def fields(page: str) -> dict[str, str]:
    """Of the recipe; of one name the first."""
    pairs = re.findall(r"<dt>([^<]+)</dt><dd>(.+?)</dd>", page[page.index('id="recipe"') :])
    return {name: re.sub(r"<[^>]+>", "", value) for name, value in reversed(pairs)}


def test_what_was_chosen_stands_apart_from_defaults(account: Account, browser: httpx.Client) -> None:
    page = look(browser, f"/variants/{account.job().variant_id}")
    pruning = page[page.index('<h3 id="recipe-1">') : page.index('<h3 id="recipe-2">')]
    chosen, _, defaults = pruning.partition("<details>")
    assert re.findall(r"<dt>([^<]+)</dt>", chosen) == ["ratio", "calibration corpus"]
    assert "<dt>criterion</dt>" in defaults
    changed = Recipe.model_validate(RECIPE.model_dump() | {"seed": 7})
    page = look(browser, f"/variants/{account.job('org/seven', recipe=changed).variant_id}")
    assert re.search(r'aria-label="Chosen"> ?<div><dt>seed</dt><dd>7</dd></div>', page)


def test_signature_provenance_and_licence_are_named(
    dashboard: RunningDashboard, account: Account, browser: httpx.Client
) -> None:
    files = {"bom.cdx.json": BILL, "model.sig": b"{}", "provenance.intoto.json": b"{}", "LICENSE": b"text"}
    work = publish(dashboard, account, files)
    page = look(browser, f"/variants/{work.variant_id}")
    assert "Signed: <code>model.sig</code> is an OpenSSF model signature" in page
    assert "--signature --public-key publisher.pem" in page
    assert "Apache-2.0, as the base model's card names it" in page
    for name in ("provenance.intoto.json", "LICENSE"):
        assert f'href="/variants/{work.variant_id}/files/{name}"' in page
    plain = look(browser, f"/variants/{publish(dashboard, account, {'a': b'1'}, name='plain').variant_id}")
    assert "Not signed" in plain
    assert "--public-key" not in plain


def test_hostile_bills_labels_and_corpora_stay_text(
    dashboard: RunningDashboard, account: Account, browser: httpx.Client
) -> None:
    bill = BILL.replace(b"Apache-2.0", HOSTILE.replace('"', '\\"').encode())
    certified = contents.certificate(corpus=HOSTILE)
    told = measured(evaluation=contents.evaluation(certified))
    work = publish(dashboard, account, {"bom.cdx.json": bill, "model.sig": b"{}"}, manifest=told)
    with account.database.write() as session:
        set_labels(session, session.get_one(Variant, work.variant_id), {"team": HOSTILE[:60]})
    for path in (f"/variants/{work.variant_id}", f"/variants/{work.variant_id}/delete"):
        page = browser.get(path).text
        assert "&lt;script&gt;" in page
        assert "<script>" not in page
        assert "<img src=x" not in page


def delete(browser: httpx.Client, work: Work, **chosen: str) -> httpx.Response:
    address = f"/variants/{work.variant_id}/delete"
    return browser.post(address, data={"csrf": csrf(browser.get(address))} | chosen)


def test_a_variant_is_deleted_and_its_publication_stays(
    dashboard: RunningDashboard, account: Account, browser: httpx.Client
) -> None:
    work = publish(dashboard, account, {"a": b"1"})
    with account.database.write() as session:
        row = session.get_one(Variant, work.variant_id)
        set_labels(session, row, {"team": "search"})
        repo = row.publish_repo_id
    page = look(browser, f"/variants/{work.variant_id}/delete")
    assert "team: search" in page
    assert f"Delete {repo}?" in page
    assert delete(browser, work).headers["location"] == "/variants"
    assert browser.get(f"/variants/{work.variant_id}").status_code == 404
    assert HfApi(endpoint=f"{dashboard.url}/hub", token=account.key).repo_exists(repo)


def test_a_variant_is_deleted_with_its_publication(
    dashboard: RunningDashboard, account: Account, browser: httpx.Client
) -> None:
    work = publish(dashboard, account, {"a": b"1"})
    hub = HfApi(endpoint=f"{dashboard.url}/hub", token=account.key)
    repo = f"{account.name}/small"
    assert hub.repo_exists(repo)
    assert delete(browser, work, publication="delete").status_code == 303
    assert not hub.repo_exists(repo)


def test_what_cannot_be_deleted_brings_the_form_back(
    dashboard: RunningDashboard, account: Account, browser: httpx.Client
) -> None:
    work = publish(dashboard, account, {"a": b"1"})
    hub = HfApi(endpoint=f"{dashboard.url}/hub", token=account.key)
    hub.upload_file(repo_id=f"{account.name}/small", path_or_fileobj=b"mine", path_in_repo="b")
    refused = delete(browser, work, publication="delete")
    assert refused.status_code == 409
    assert "holds more than commit" in refused.text
    assert 'value="delete" checked' in refused.text
    assert browser.get(f"/variants/{work.variant_id}").status_code == 200
    live = account.job("org/live").start()
    page = look(browser, f"/variants/{live.variant_id}/delete")
    assert "Only what has ended can be deleted" in page
    assert delete(browser, live).status_code == 409


def test_who_may_only_look_is_not_offered_to_delete(
    dashboard: RunningDashboard, account: Account, browser: httpx.Client
) -> None:
    work = account.job().start().succeed(measured())
    address = f"/variants/{work.variant_id}"
    token = {"csrf": csrf(browser.get(address))}
    assert f'href="{address}/delete"' in browser.get(address).text
    with dashboard.browser() as reader:
        assert sign_in(reader, key_with(account, Scope.MODELS_READ)).status_code == 303
        assert "/delete" not in reader.get(address).text
        assert reader.get(f"{address}/delete").status_code == 403
        own = {"csrf": csrf(reader.get(address))}
        assert reader.post(f"{address}/delete", data=own).status_code == 403
    with dashboard.browser() as writer:
        assert sign_in(writer, key_with(account, Scope.VARIANTS_WRITE)).status_code == 303
        page = writer.get(f"{address}/delete")
        assert 'value="delete"' not in page.text
        answer = writer.post(f"{address}/delete", data={"csrf": csrf(page), "publication": "delete"})
        assert answer.status_code == 403
    assert browser.post(f"{address}/delete", data={"csrf": "0" * 64}).status_code == 403
    with dashboard.signed_in(dashboard.account()) as stranger:
        assert stranger.get(f"{address}/delete").status_code == 404
        own = {"csrf": csrf(stranger.get("/jobs"))}
        assert stranger.post(f"{address}/delete", data=own).status_code == 404
    assert browser.post(f"{address}/delete", data=token).status_code == 303


def key_with(account: Account, scope: Scope) -> str:
    key = keys.new_key()
    with account.database.write() as session:
        keys.add_key(session, account.tenant_id, scope.value, key, scopes=[scope])
    return key
