"""The service answers as the model does, and refuses what it cannot answer with a 4xx."""

import asyncio

import numpy as np
import pytest

from hlr_jax.serving.batching import Batcher


def test_recommendations_are_those_of_the_model(client, model):
    found = client.post("/recommend", json={"users": ["u03", "u00"], "k": 4}).json()
    for answer in found["recommendations"]:
        table = model.recommend([answer["user"]], 4)
        expected = table.drop("user", "rank").to_dicts()
        assert [x["item"] for x in answer["items"]] == [x["item"] for x in expected]
        assert answer["items"][0].keys() == {"item", "title", "score"}
        np.testing.assert_allclose(
            [x["score"] for x in answer["items"]], [x["score"] for x in expected], rtol=1e-5
        )
    some = {"users": ["u03", "nobody"], "k": 3, "items": [1, 2, 4], "exclude": [2]}
    found = client.post("/recommend", json=some | {"unknown": "popular", "filter_seen": False})
    lists = [[x["item"] for x in answer["items"]] for answer in found.json()["recommendations"]]
    assert [sorted(items) for items in lists] == [[1, 4], [1, 4]]


def test_lists_may_be_empty(client):
    for wanted in ({"items": []}, {"items": [1], "exclude": [1]}):
        found = client.post("/recommend", json={"users": ["u03", "u00"], "k": 3} | wanted).json()
        assert [x["items"] for x in found["recommendations"]] == [[], []]
    assert client.post("/fold-in", json={"history": [1], "items": []}).json() == {"items": []}
    unknown = client.post("/fold-in", json={"history": [99], "k": 3, "unknown": "popular"}).json()
    assert len(unknown["items"]) == 3


def test_the_other_requests_are_answered_too(client, model):
    similar = client.get("/similar", params={"item": "4", "k": 3}).json()
    assert [x["item"] for x in similar["items"]] == model.similar_items([4], 3)["similar"].to_list()
    new = client.post("/fold-in", json={"history": [1, 4, 7], "k": 5}).json()
    expected = model.recommend_for([1, 4, 7], 5)
    assert [x["item"] for x in new["items"]] == expected["item"].to_list()
    why = client.post("/explain", json={"user": "u03", "item": 7, "k": 3}).json()
    explained = model.explain("u03", 7, 3)
    assert why["distance"] == pytest.approx(explained.distance)
    assert [x["item"] for x in why["history"]] == explained.history["item"].to_list()
    assert client.get("/health").json() == {"status": "ok", "users": 24, "items": 30}
    assert "/fold-in" in client.get("/openapi.json").json()["paths"]
    assert client.get("/docs").status_code == 200


JSON = {"content-type": "application/json"}
REFUSED = {
    "nobody": ("/recommend", {"users": ["nobody"]}, 404, "user 'nobody' is not in"),
    "no item": ("/recommend", {"users": ["u01"], "items": [99]}, 404, "items: item 99"),
    "k": ("/recommend", {"users": ["u01"], "k": 0}, 422, "greater than or equal to 1"),
    "large k": ("/recommend", {"users": ["u01"], "k": 26}, 422, "less than or equal to 25"),
    "no users": ("/recommend", {"users": []}, 422, "at least 1 item"),
    "many users": ("/recommend", {"users": ["u01"] * 21}, 422, "at most 20 items"),
    "fraction": ("/recommend", {"users": [1.5]}, 422, "valid integer"),
    "truth": ("/recommend", {"users": [True]}, 422, "valid integer"),
    "field": ("/recommend", {"users": ["u01"], "seed": 1}, 422, "Extra inputs"),
    "large": ("/recommend", {"users": ["u" * 6000]}, 413, "at most 5000 bytes"),
    "history": ("/fold-in", {"history": [99]}, 404, "history: item 99 is not in"),
    "explain": ("/explain", {"user": "u01", "item": "x"}, 404, "item: item 'x' is not in"),
    "path": ("/nothing", {}, 404, "Not Found"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_that_cannot_be_answered_is_refused(name, client):
    path, body, status, text = REFUSED[name]
    answer = client.post(path, json=body)
    assert answer.status_code == status
    fault = answer.json()["detail"]
    assert text in fault
    assert "\n" not in fault


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b'{"users": ["u01"', "the body is not JSON: "),
        (b"[]", "the body is not a JSON object; send one"),
        (b"", "the body is not a JSON object; send one"),
        (b'{"k": 3}', "users: Field required"),
        (b'{"users": ["u01"], "k": "many"}', "k: Input should be a valid integer"),
    ],
)
def test_a_fault_of_a_request_is_one_line_that_names_the_field(client, body, fault):
    answer = client.post("/recommend", content=body, headers=JSON)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(fault)


def test_measures_count_every_request(client):
    before = client.get("/metrics").text
    for _ in range(3):
        client.get("/health")
    after = client.get("/metrics").text

    def count(text: str) -> int:
        name = 'hlr_jax_requests_total{path="/health",status="200"} '
        lines = [line for line in text.splitlines() if line.startswith(name)]
        return int(lines[0].split()[-1]) if lines else 0

    assert count(after) == count(before) + 3
    assert 'hlr_jax_request_seconds_bucket{path="/health",le="+Inf"}' in after


def test_requests_that_come_together_are_answered_together():
    asked: list[tuple[list[int], int]] = []

    def answer(users: list[int], k: int) -> list[list[int]]:
        asked.append((users, k))
        if 99 in users:
            raise ValueError("wrong")
        return [[user * 10 + rank for rank in range(k)] for user in users]

    async def all_together() -> list[object]:
        batcher = Batcher(answer, most=4)
        calls = [batcher.lists([user], 1 + user % 3) for user in range(9)]
        calls.append(batcher.lists([99], 1))
        return await asyncio.gather(*calls, return_exceptions=True)

    *found, wrong = asyncio.run(all_together())
    assert found == [[[user * 10 + r for r in range(1 + user % 3)]] for user in range(9)]
    assert isinstance(wrong, ValueError)
    assert len(asked) < 10
    assert all(len(users) <= 4 for users, _ in asked)
